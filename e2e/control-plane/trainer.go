package main

import (
	"context"
	"flag"
	"os"

	trainerv1alpha1 "github.com/kubeflow/trainer/v2/pkg/apis/trainer/v1alpha1"
	trainercontroller "github.com/kubeflow/trainer/v2/pkg/controller"
	runtimecore "github.com/kubeflow/trainer/v2/pkg/runtime/core"
	trainerwebhooks "github.com/kubeflow/trainer/v2/pkg/webhooks"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/kubernetes/pkg/controller/job"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	jobsetv1alpha2 "sigs.k8s.io/jobset/api/jobset/v1alpha2"
	jobsetcontrollers "sigs.k8s.io/jobset/pkg/controllers"
	jobsetwebhooks "sigs.k8s.io/jobset/pkg/webhooks"
	schedulerpluginsv1alpha1 "sigs.k8s.io/scheduler-plugins/apis/scheduling/v1alpha1"
	volcanov1beta1 "volcano.sh/apis/pkg/apis/scheduling/v1beta1"
)

// trainer runs what turns a TrainJob into pods, each with its webhooks: Kubeflow Trainer v2, JobSet,
// and the Job controller of kube-controller-manager.
func trainer() {
	flags := flag.NewFlagSet("trainer", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "kubeconfig file")
	webhookPort := flags.Int("webhook-port", 9443, "port of the webhooks on the loopback")
	certificates := flags.String("webhook-certificates", "", "folder with tls.crt and tls.key")
	must(flags.Parse(os.Args[1:]))
	ctrl.SetLogger(zap.New())

	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	must(err)
	config.QPS, config.Burst = 100, 200
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:  trainerScheme(),
		Metrics: metricsserver.Options{BindAddress: "0"},
		WebhookServer: webhook.NewServer(webhook.Options{
			Host: "127.0.0.1", Port: *webhookPort, CertDir: *certificates,
		}),
	})
	must(err)
	ctx := ctrl.SetupSignalHandler()
	indexer := manager.GetFieldIndexer()
	must(jobsetcontrollers.SetupJobSetIndexes(ctx, indexer))
	sets := jobsetcontrollers.NewJobSetReconciler(
		manager.GetClient(), manager.GetScheme(), manager.GetEventRecorder("jobset"))
	must(sets.SetupWithManager(manager))
	must(jobsetwebhooks.Setup(manager))
	runtimes, err := runtimecore.New(ctx, manager.GetClient(), indexer, nil)
	must(err)
	_, err = trainercontroller.SetupControllers(manager, runtimes, controller.Options{})
	must(err)
	_, err = trainerwebhooks.Setup(manager, runtimes)
	must(err)
	runJobs(ctx, config)
	must(manager.Start(ctx))
}

func trainerScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, trainerv1alpha1.AddToScheme, jobsetv1alpha2.AddToScheme,
		schedulerpluginsv1alpha1.AddToScheme, volcanov1beta1.AddToScheme,
	} {
		must(add(scheme))
	}
	return scheme
}

// runJobs starts the Job controller.
func runJobs(ctx context.Context, config *rest.Config) {
	client := kubernetes.NewForConfigOrDie(config)
	typed := informers.NewSharedInformerFactory(client, 0)
	jobs, err := job.NewController(ctx, client, typed.Core().V1().Pods(), typed.Batch().V1().Jobs(), nil, nil)
	must(err)
	typed.Start(ctx.Done())
	go jobs.Run(ctx, 2)
}
