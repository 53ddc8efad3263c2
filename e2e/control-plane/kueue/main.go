// kueue runs Kueue for tests: its scheduler, its controllers and its webhooks, set up as Kueue's own
// main does. That one cannot be used here: it reads a certificate for its metrics below /etc. It is
// a program of its own because Kueue and JobSet define the same feature gate.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	configapi "sigs.k8s.io/kueue/apis/config/v1beta2"
	kueuev1beta2 "sigs.k8s.io/kueue/apis/kueue/v1beta2"
	"sigs.k8s.io/kueue/pkg/cache/queue"
	schedulercache "sigs.k8s.io/kueue/pkg/cache/scheduler"
	"sigs.k8s.io/kueue/pkg/config"
	"sigs.k8s.io/kueue/pkg/constants"
	"sigs.k8s.io/kueue/pkg/controller/core"
	"sigs.k8s.io/kueue/pkg/controller/core/indexer"
	"sigs.k8s.io/kueue/pkg/controller/jobframework"
	"sigs.k8s.io/kueue/pkg/controller/tas"
	tasindexer "sigs.k8s.io/kueue/pkg/controller/tas/indexer"
	"sigs.k8s.io/kueue/pkg/metrics"
	"sigs.k8s.io/kueue/pkg/resources"
	"sigs.k8s.io/kueue/pkg/scheduler"
	"sigs.k8s.io/kueue/pkg/scheduler/preemption/expectations"
	"sigs.k8s.io/kueue/pkg/util/kubeversion"
	"sigs.k8s.io/kueue/pkg/webhooks"

	// The kinds that Kueue can manage here.
	_ "sigs.k8s.io/kueue/pkg/controller/jobs/kubeflow/jobs/pytorchjob"
	_ "sigs.k8s.io/kueue/pkg/controller/jobs/trainjob"
)

// Other clusters are not here, nor an API server of Kueue's own.
const featureGates = "MultiKueue=false,VisibilityOnDemand=false"

func main() {
	kubeconfig := flag.Lookup("kubeconfig").Value // a flag of controller-runtime
	port := flag.Int("webhook-port", 9443, "port of the webhooks on the loopback")
	certificates := flag.String("webhook-certificates", "", "folder with tls.crt and tls.key")
	frameworks := flag.String("frameworks", "", "the kinds that it manages, separated by commas")
	flag.Parse()
	ctrl.SetLogger(zap.New())

	client, err := clientcmd.BuildConfigFromFlags("", kubeconfig.String())
	must(err)
	client.QPS, client.Burst = 50, 100
	must(config.LoadAndValidateFeatureGates(featureGates, nil).ToAggregate())
	scheme := newScheme()
	_, configuration, err := config.Load(scheme, "")
	must(err)
	configuration.Integrations = &configapi.Integrations{Frameworks: strings.Split(*frameworks, ",")}
	manager, err := ctrl.NewManager(client, ctrl.Options{
		Scheme:                 scheme,
		HealthProbeBindAddress: "0",
		Metrics:                metricsserver.Options{BindAddress: "0"},
		WebhookServer: webhook.NewServer(webhook.Options{
			Host: "127.0.0.1", Port: *port, CertDir: *certificates,
		}),
	})
	must(err)
	run(ctrl.SetupSignalHandler(), manager, client, &configuration)
}

func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	must(clientgoscheme.AddToScheme(scheme))
	must(kueuev1beta2.AddToScheme(scheme))
	must(configapi.AddToScheme(scheme))
	must(jobframework.ForEachIntegration(func(_ string, integration jobframework.IntegrationCallbacks) error {
		if integration.AddToScheme == nil {
			return nil
		}
		return integration.AddToScheme(scheme)
	}))
	return scheme
}

// run sets everything up in the order of Kueue's main and runs it until the context ends.
func run(ctx context.Context, manager ctrl.Manager, client *rest.Config, configuration *configapi.Configuration) {
	metrics.Register()
	formatter := resources.NewResourceFormatter()
	admitted := schedulercache.New(manager.GetClient(), schedulercache.WithResourceFormatter(formatter))
	requeuer := queue.NewRequeuer()
	must(manager.Add(requeuer))
	preemptions := expectations.New()
	queues := queue.NewManager(manager.GetClient(), admitted, requeuer,
		queue.WithResourceFormatter(formatter), queue.WithPreemptionExpectations(preemptions))

	must(indexer.Setup(ctx, manager.GetFieldIndexer()))
	must(tasindexer.SetupIndexes(ctx, manager.GetFieldIndexer()))
	frameworks := jobframework.WithEnabledFrameworks(configuration.Integrations.Frameworks)
	must(jobframework.SetupIndexes(ctx, manager.GetFieldIndexer(), frameworks))
	_, err := core.SetupControllers(manager, queues, admitted, configuration, core.SetupControllersOpts{
		PreemptionExpectations: preemptions, ResourceFormatter: formatter,
	})
	must(err)
	_, err = tas.SetupControllers(manager, queues, admitted, configuration, nil)
	must(err)
	must(jobframework.SetupControllers(ctx, manager, ctrl.Log, frameworks,
		jobframework.WithKubeServerVersion(serverVersion(manager, client)),
		jobframework.WithManagerName(constants.KueueName),
		jobframework.WithManagedJobsNamespaceSelector(labels.Everything()),
		jobframework.WithWaitForPodsReady(configuration.WaitForPodsReady),
		jobframework.WithCache(admitted), jobframework.WithQueues(queues)))
	_, err = webhooks.Setup(manager, nil)
	must(err)
	go queues.CleanUpOnContext(ctx)
	go admitted.CleanUpOnContext(ctx)
	must(manager.Add(scheduler.New(queues, admitted, manager.GetClient(),
		manager.GetEventRecorder(constants.AdmissionName),
		scheduler.WithPreemptionExpectations(preemptions), scheduler.WithResourceFormatter(formatter))))
	must(manager.Start(ctx))
}

func serverVersion(manager ctrl.Manager, client *rest.Config) *kubeversion.ServerVersionFetcher {
	version := kubeversion.NewServerVersionFetcher(discovery.NewDiscoveryClientForConfigOrDie(client))
	must(manager.Add(version))
	must(version.FetchServerVersion())
	return version
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "kueue:", err)
		os.Exit(1)
	}
}
