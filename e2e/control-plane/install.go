package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"
)

const (
	nodes        = 16
	operatorUser = "training-operator"
	jobsWebhook  = "validator.pytorchjob.training-operator.kubeflow.org"
)

// installer puts objects into the API server.
type installer struct {
	ctx     context.Context
	typed   *kubernetes.Clientset
	dynamic *dynamic.DynamicClient
	mapper  *restmapper.DeferredDiscoveryRESTMapper
}

func newInstaller(ctx context.Context, config *rest.Config) (*installer, error) {
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	untyped, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	cache := memory.NewMemCacheClient(discovery.DiscoveryInterface(typed.Discovery()))
	return &installer{ctx, typed, untyped, restmapper.NewDeferredDiscoveryRESTMapper(cache)}, nil
}

// ready waits until the API server answers the path with 200.
func (i *installer) ready(path string) error {
	client := i.typed.Discovery().RESTClient()
	return i.until(func() error {
		return client.Get().AbsPath(path).Timeout(2 * time.Second).Do(i.ctx).Error()
	})
}

// until tries until there is no error or no time left.
func (i *installer) until(try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-i.ctx.Done():
			return fmt.Errorf("gave up: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// manifests applies the objects of a YAML text, server-side. New API servers lack
// a kind or a namespace for a moment, so each is tried for a while.
func (i *installer) manifests(text []byte) error {
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(document, &object.Object); err != nil {
			return err
		}
		if len(object.Object) == 0 {
			continue
		}
		if err := i.until(func() error { return i.apply(object) }); err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
}

func (i *installer) apply(object *unstructured.Unstructured) error {
	kind := object.GroupVersionKind()
	mapping, err := i.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		i.mapper.Reset()
		return err
	}
	var resource dynamic.ResourceInterface = i.dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		resource = i.dynamic.Resource(mapping.Resource).Namespace(object.GetNamespace())
	}
	_, err = resource.Apply(i.ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: "control-plane", Force: true})
	return err
}

// operatorRights binds the operator's user to the operator's own role, and to no more.
func (i *installer) operatorRights() error {
	_, err := i.typed.RbacV1().ClusterRoleBindings().Create(i.ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: operatorUser},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: operatorUser},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: operatorUser}},
	}, metav1.CreateOptions{})
	return err
}

// jobs waits until the API server tells of PyTorchJobs: an operator that starts a
// moment earlier looks again only ten seconds later.
func (i *installer) jobs() error {
	return i.until(func() error {
		i.mapper.Reset()
		_, err := i.mapper.RESTMapping(schema.GroupKind{Group: "kubeflow.org", Kind: "PyTorchJob"}, "v1")
		return err
	})
}

// webhook installs the operator's own webhook configuration, of which the part for
// PyTorchJobs stays. In a cluster it names a Service; here it is the loopback.
func (i *installer) webhook(manifest []byte, port int, authority []byte) error {
	var configuration admissionv1.ValidatingWebhookConfiguration
	if err := yaml.UnmarshalStrict(manifest, &configuration); err != nil {
		return err
	}
	for _, webhook := range configuration.Webhooks {
		if webhook.Name != jobsWebhook {
			continue
		}
		address := fmt.Sprintf("https://127.0.0.1:%d%s", port, *webhook.ClientConfig.Service.Path)
		webhook.ClientConfig = admissionv1.WebhookClientConfig{URL: &address, CABundle: authority}
		configuration.Name = jobsWebhook
		configuration.Webhooks = []admissionv1.ValidatingWebhook{webhook}
		webhooks := i.typed.AdmissionregistrationV1().ValidatingWebhookConfigurations()
		_, err := webhooks.Create(i.ctx, &configuration, metav1.CreateOptions{})
		return err
	}
	return errors.New("the operator's manifest has no webhook for PyTorchJobs")
}

// fakeNodes are the machines that kwok plays the kubelet of: eight GPUs each.
func (i *installer) fakeNodes() error {
	capacity := corev1.ResourceList{
		"cpu":            resource.MustParse("128"),
		"memory":         resource.MustParse("2Ti"),
		"pods":           resource.MustParse("500"),
		"nvidia.com/gpu": resource.MustParse("8"),
	}
	for number := range nodes {
		name := fmt.Sprintf("gpu-%d", number)
		_, err := i.typed.CoreV1().Nodes().Create(i.ctx, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{
				Name:        name,
				Annotations: map[string]string{"kwok.x-k8s.io/node": "fake"},
				Labels: map[string]string{
					corev1.LabelHostname: name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
				},
			},
			Status: corev1.NodeStatus{Capacity: capacity, Allocatable: capacity},
		}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
	}
	return nil
}
