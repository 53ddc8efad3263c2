package main

import (
	"flag"
	"os"

	kubeflowv1 "github.com/kubeflow/training-operator/pkg/apis/kubeflow.org/v1"
	"github.com/kubeflow/training-operator/pkg/config"
	"github.com/kubeflow/training-operator/pkg/controller.v1/common"
	"github.com/kubeflow/training-operator/pkg/controller.v1/pytorch"
	pytorchwebhook "github.com/kubeflow/training-operator/pkg/webhooks/pytorch"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

// operator runs the Kubeflow training operator's PyTorchJob reconciler and its
// validating webhook, set up as the operator's own main does. That one cannot be
// used as it is: it waits for certificates that it has put into a Secret of the
// cluster and that a kubelet has mounted. Here they come from a folder.
func operator() {
	flags := flag.NewFlagSet("operator", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "kubeconfig file")
	webhookPort := flags.Int("webhook-port", 9443, "port of the webhook on the loopback")
	certificates := flags.String("webhook-certificates", "", "folder with tls.crt and tls.key")
	must(flags.Parse(os.Args[1:]))
	ctrl.SetLogger(zap.New())

	// The defaults of the operator's flags. Left empty, every worker would be
	// refused for an init container without an image.
	config.Config.PyTorchInitContainerImage = config.PyTorchInitContainerImageDefault
	config.Config.PyTorchInitContainerTemplateFile = config.PyTorchInitContainerTemplateFileDefault
	config.Config.PyTorchInitContainerMaxTries = config.PyTorchInitContainerMaxTriesDefault

	scheme := runtime.NewScheme()
	must(clientgoscheme.AddToScheme(scheme))
	must(kubeflowv1.AddToScheme(scheme))
	client, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	must(err)
	client.QPS, client.Burst = 20, 30 // the operator's own defaults
	manager, err := ctrl.NewManager(client, ctrl.Options{
		Scheme:  scheme,
		Metrics: metricsserver.Options{BindAddress: "0"},
		WebhookServer: webhook.NewServer(webhook.Options{
			Host: "127.0.0.1", Port: *webhookPort, CertDir: *certificates,
		}),
	})
	must(err)
	must(pytorch.NewReconciler(manager, common.GenNonGangSchedulerSetupFunc()).SetupWithManager(manager, 1))
	must(pytorchwebhook.SetupWebhook(manager))
	must(manager.Start(ctrl.SetupSignalHandler()))
}
