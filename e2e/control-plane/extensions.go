package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// extension is what the order `install NAME` adds to a control plane: a part, the kinds that it
// needs and its webhooks. Its manifests are in the folder of its name beside the binary.
type extension struct {
	name string
	// The kinds that the part takes for granted when it starts.
	kinds []schema.GroupKind
	// The webhooks that are installed, of all those in its manifests.
	webhooks []string
	// Webhooks that are asked only about objects with a label.
	selectors map[string]string
}

const jobSetLabel = "jobset.sigs.k8s.io/jobset-name"

var extensions = []extension{
	{
		name: "trainer",
		kinds: []schema.GroupKind{
			{Group: "trainer.kubeflow.org", Kind: "TrainJob"},
			{Group: "trainer.kubeflow.org", Kind: "TrainingRuntime"},
			{Group: "trainer.kubeflow.org", Kind: "ClusterTrainingRuntime"},
			{Group: "jobset.x-k8s.io", Kind: "JobSet"},
		},
		webhooks: []string{
			"defaulter.trainjob.trainer.kubeflow.org", "validator.trainjob.trainer.kubeflow.org",
			"validator.clustertrainingruntime.trainer.kubeflow.org",
			"validator.trainingruntime.trainer.kubeflow.org",
			"mjobset.kb.io", "vjobset.kb.io", "mpod.kb.io", "vpod.kb.io",
		},
		selectors: map[string]string{"mpod.kb.io": jobSetLabel, "vpod.kb.io": jobSetLabel},
	},
	{
		name:  "kueue",
		kinds: []schema.GroupKind{{Group: "kueue.x-k8s.io", Kind: "Workload"}},
		webhooks: []string{
			"mclusterqueue.kb.io", "mresourceflavor.kb.io", "mworkload.kb.io",
			"vclusterqueue.kb.io", "vcohort.kb.io", "vlocalqueue.kb.io", "vresourceflavor.kb.io",
			"vworkload.kb.io",
		},
	},
}

// frameworks are the kinds that Kueue can manage, each with the names of its webhooks.
var frameworks = map[string][]string{
	"kubeflow.org/pytorchjob":       {"mpytorchjob.kb.io", "vpytorchjob.kb.io"},
	"trainer.kubeflow.org/trainjob": {"mtrainjob.kb.io", "vtrainjob.kb.io"},
}

// install adds an extension. Kueue takes the kinds that it manages.
func (p *plane) install(words []string) error {
	if len(words) == 0 {
		return errors.New("install what?")
	}
	at := slices.IndexFunc(extensions, func(e extension) bool { return e.name == words[0] })
	if at < 0 {
		return fmt.Errorf("no such extension: %q", words[0])
	}
	extension, program := extensions[at], ""
	arguments := []string{"--kubeconfig", p.access.kubeconfig("controllers"), "--webhook-certificates", p.folder}
	if extension.name == "kueue" {
		for _, framework := range words[1:] {
			if frameworks[framework] == nil {
				return fmt.Errorf("Kueue cannot manage %q here", framework)
			}
			extension.webhooks = append(slices.Clone(extension.webhooks), frameworks[framework]...)
		}
		program = "kueue-manager"
		arguments = append(arguments, "--frameworks", strings.Join(words[1:], ","))
	}
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(ports[0])
	if err != nil {
		return err
	}
	arguments = append(arguments, "--webhook-port", ports[0])
	added := &part{name: extension.name, program: program, folder: p.folder, arguments: arguments, port: port}
	return p.add(extension, added)
}

func (p *plane) add(extension extension, added *part) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	install, err := newInstaller(ctx, p.admin)
	if err != nil {
		return err
	}
	crds, err := manifests(extension.name, "crds")
	if err != nil {
		return err
	}
	for _, crd := range crds {
		if err := install.manifests(crd); err != nil {
			return err
		}
	}
	if err := install.kinds(extension.kinds); err != nil {
		return err
	}
	p.parts = append(p.parts, added)
	if err := added.start(); err != nil {
		return err
	}
	if err := install.until(added.listens); err != nil {
		p.tellLogs()
		return err
	}
	configurations, err := manifests(extension.name, "webhooks")
	if err != nil {
		return err
	}
	for _, configuration := range configurations {
		if err := install.webhooks(extension, configuration, added.port, p.access.authority); err != nil {
			return err
		}
	}
	return nil
}

// manifests are the files of a folder that build.sh put beside the binary.
func manifests(folders ...string) ([][]byte, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	folder := filepath.Join(append([]string{filepath.Dir(program)}, folders...)...)
	files, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var contents [][]byte
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(folder, file.Name()))
		if err != nil {
			return nil, err
		}
		contents = append(contents, content)
	}
	return contents, nil
}

// kinds waits until the API server serves the kinds.
func (i *installer) kinds(kinds []schema.GroupKind) error {
	for _, kind := range kinds {
		err := i.until(func() error {
			i.mapper.Reset()
			_, err := i.mapper.RESTMapping(kind)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// webhooks installs the webhooks of an extension from a file of configurations. In a cluster they
// name a Service; here it is the loopback.
func (i *installer) webhooks(extension extension, file []byte, port int, authority []byte) error {
	for _, document := range strings.Split(string(file), "\n---") {
		var configuration struct {
			Kind     string                        `json:"kind"`
			Webhooks []admissionv1.MutatingWebhook `json:"webhooks"`
		}
		if err := yaml.Unmarshal([]byte(document), &configuration); err != nil {
			return err
		}
		var kept []admissionv1.MutatingWebhook
		for _, webhook := range configuration.Webhooks {
			if !slices.Contains(extension.webhooks, webhook.Name) {
				continue
			}
			address := fmt.Sprintf("https://127.0.0.1:%d%s", port, *webhook.ClientConfig.Service.Path)
			webhook.ClientConfig = admissionv1.WebhookClientConfig{URL: &address, CABundle: authority}
			if label, ok := extension.selectors[webhook.Name]; ok {
				webhook.ObjectSelector = &metav1.LabelSelector{
					MatchExpressions: []metav1.LabelSelectorRequirement{{Key: label, Operator: "Exists"}},
				}
			}
			kept = append(kept, webhook)
		}
		if len(kept) == 0 {
			continue
		}
		// The name begins with the first webhook's: an extension may have several files.
		name := extension.name + "." + kept[0].Name
		if err := i.configuration(configuration.Kind, name, kept); err != nil {
			return err
		}
	}
	return nil
}

func (i *installer) configuration(kind, name string, webhooks []admissionv1.MutatingWebhook) error {
	content, err := json.Marshal(webhooks)
	if err != nil {
		return err
	}
	var untyped []any
	if err := json.Unmarshal(content, &untyped); err != nil {
		return err
	}
	return i.apply(&unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "admissionregistration.k8s.io/v1",
		"kind":       kind,
		"metadata":   map[string]any{"name": name},
		"webhooks":   untyped,
	}})
}

// listens tells whether the part's webhooks can be reached.
func (p *part) listens() error {
	connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.port))
	if err != nil {
		return err
	}
	return connection.Close()
}
