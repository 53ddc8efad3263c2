package main

import (
	"context"
	"flag"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/deployment"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/replicaset"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
)

// controllers runs five of the controllers of kube-controller-manager: the
// garbage collector (a deleted PyTorchJob takes its pods along), namespaces (a
// deleted one ends), service accounts (a namespace gets its default account,
// without which no pod is admitted to it), and deployments with replica sets.
func controllers() {
	flags := flag.NewFlagSet("controllers", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "kubeconfig file")
	discovery := flags.Duration("gc-discovery-period", 5*time.Second, "how often the garbage collector looks for new kinds")
	must(flags.Parse(os.Args[1:]))

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	must(err)
	config.QPS, config.Burst = 200, 400
	client := kubernetes.NewForConfigOrDie(config)
	metadataClient := metadata.NewForConfigOrDie(config)
	typed := informers.NewSharedInformerFactory(client, 0)
	meta := metadatainformer.NewSharedInformerFactory(metadataClient, 0)
	started := make(chan struct{})

	accounts, err := serviceaccount.NewServiceAccountsController(klog.FromContext(ctx),
		typed.Core().V1().ServiceAccounts(), typed.Core().V1().Namespaces(), client,
		serviceaccount.DefaultServiceAccountsControllerOptions())
	must(err)
	namespaces := namespace.NewNamespaceController(ctx, client, metadataClient,
		client.Discovery().ServerPreferredNamespacedResources,
		typed.Core().V1().Namespaces(), 5*time.Minute, corev1.FinalizerKubernetes)
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	collector, err := garbagecollector.NewGarbageCollector(ctx, client, metadataClient, mapper,
		garbagecollector.DefaultIgnoredResources(), informerfactory.NewInformerFactory(typed, meta), started)
	must(err)

	deployments, err := deployment.NewDeploymentController(ctx,
		typed.Apps().V1().Deployments(), typed.Apps().V1().ReplicaSets(), typed.Core().V1().Pods(), client)
	must(err)
	replicaSets := replicaset.NewReplicaSetController(ctx,
		typed.Apps().V1().ReplicaSets(), typed.Core().V1().Pods(), client, replicaset.BurstReplicas)

	go accounts.Run(ctx, 1)
	go deployments.Run(ctx, 1)
	go replicaSets.Run(ctx, 1)
	go namespaces.Run(ctx, 2)
	go collector.Run(ctx, 4, 30*time.Second)
	go collector.Sync(ctx, client.Discovery(), *discovery)
	typed.Start(ctx.Done())
	meta.Start(ctx.Done())
	close(started)
	<-stopSignals()
}
