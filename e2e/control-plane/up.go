package main

import (
	"bufio"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// How long the control plane, or a part that was started again, may take.
const patience = 2 * time.Minute

//go:embed stages.yaml
var files embed.FS

// Where the log is that every container has.
const containerLogs = "containers"

// What the fake kubelet takes for the log of every container.
const logs = `---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: ClusterLogs
metadata:
  name: containers
spec:
  logs:
  - logsFile: %s/current.log
    previousLogsFile: %[1]s/previous.log
`

// up runs a control plane on free ports of the loopback until standard input ends
// or a signal comes. Kubeconfigs, data and logs/ are in a temporary folder meanwhile.
//
// It says on standard output, as one line of JSON, where the API server is and
// which kubeconfig is the administrator's, and in which folder the log of every
// container is: `current.log` and `previous.log`, in the form in which container
// runtimes write logs. After that each line of standard input
// is an order, and is answered with one line: ok, or what went wrong. `kill PART`
// (as the kernel would), `start PART`, `install trainer`, and `install kueue KIND...`
// with the kinds of jobs that Kueue manages.
//
// Whoever starts it owns it: when they die, in whatever way, standard input ends
// and so does everything here.
func up() {
	// A part gets a signal when the thread that started it ends. This one does not
	// before the process does.
	runtime.LockOSThread()
	folder, err := os.MkdirTemp("", "control-plane-")
	must(err)
	lines, signals := orders(), stopSignals()
	plane, err := newPlane(folder)
	must(err)
	if err := plane.start(); err != nil {
		plane.tellLogs()
		plane.end()
		must(err)
	}
	ready, err := json.Marshal(map[string]string{
		"server": plane.access.server, "kubeconfig": plane.access.kubeconfig("admin"),
		"logs": filepath.Join(folder, containerLogs),
	})
	must(err)
	fmt.Println(string(ready))
	for {
		select {
		case line, more := <-lines:
			if !more {
				plane.end()
				return
			}
			if err := plane.order(line); err != nil {
				fmt.Println("error:", err)
				continue
			}
			fmt.Println("ok")
		case <-signals:
			plane.end()
			return
		}
	}
}

func orders() <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for input := bufio.NewScanner(os.Stdin); input.Scan(); {
			lines <- input.Text()
		}
	}()
	return lines
}

// plane is the control plane: its parts in the order in which they start.
type plane struct {
	folder string
	access *access
	admin  *rest.Config
	parts  []*part
}

func newPlane(folder string) (*plane, error) {
	if err := os.MkdirAll(filepath.Join(folder, "logs"), 0o700); err != nil {
		return nil, err
	}
	kubelet, err := kubeletConfiguration(folder)
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(5)
	if err != nil {
		return nil, err
	}
	client, peer, server := "http://127.0.0.1:"+ports[0], "http://127.0.0.1:"+ports[1], "https://127.0.0.1:"+ports[2]
	access, err := newAccess(folder, server)
	if err != nil {
		return nil, err
	}
	admin, err := clientcmd.BuildConfigFromFlags("", access.kubeconfig("admin"))
	if err != nil {
		return nil, err
	}
	webhook, err := strconv.Atoi(ports[3])
	if err != nil {
		return nil, err
	}
	plane := &plane{folder: folder, access: access, admin: admin}
	add := func(name string, arguments ...string) {
		plane.parts = append(plane.parts, &part{name: name, folder: folder, arguments: arguments})
	}
	// Nothing here has to survive the machine, so etcd does not wait for the disk.
	add("etcd", "--data-dir", filepath.Join(folder, "etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	// TaintNodesByCondition is off since no controller here would take its taint from
	// a fake node again. etcd is compacted by tests that ask for it, and by nobody else.
	add("kube-apiserver", "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1", "--secure-port", ports[2],
		"--etcd-servers", client, "--etcd-compaction-interval", "0", "--endpoint-reconciler-type", "none",
		"--disable-admission-plugins", "TaintNodesByCondition", "--authorization-mode", "RBAC", "--profiling=false",
		"--tls-cert-file", access.certificate, "--tls-private-key-file", access.key, "--token-auth-file", access.tokens,
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", access.signingKey,
		"--service-account-signing-key-file", access.signingKey, "--service-cluster-ip-range", "10.0.0.0/24")
	add("controllers", "--kubeconfig", access.kubeconfig("controllers"))
	add("kube-scheduler", "--kubeconfig", access.kubeconfig("system:kube-scheduler"),
		"--leader-elect=false", "--secure-port", "0")
	add("kwok", "--kubeconfig", access.kubeconfig("kwok"), "--config", kubelet, "--manage-all-nodes",
		"--node-ip", "127.0.0.1", "--node-port", ports[4], "--server-address", "127.0.0.1:"+ports[4],
		"--tls-cert-file", access.certificate, "--tls-private-key-file", access.key,
		"--cidr", "10.1.0.0/16", "--node-lease-duration-seconds", "40")
	add("operator", "--kubeconfig", access.kubeconfig(operatorUser),
		"--webhook-port", ports[3], "--webhook-certificates", folder)
	plane.part("operator").port = webhook
	return plane, nil
}

// kubeletConfiguration writes what the fake kubelet does, and the logs that it has.
func kubeletConfiguration(folder string) (string, error) {
	stages, err := fs.ReadFile(files, "stages.yaml")
	if err != nil {
		return "", err
	}
	containers := filepath.Join(folder, containerLogs)
	if err := os.Mkdir(containers, 0o700); err != nil {
		return "", err
	}
	for _, name := range []string{"current.log", "previous.log"} {
		line := time.Now().UTC().Format(time.RFC3339Nano) + " stdout F the beginning of " + name + "\n"
		if err := os.WriteFile(filepath.Join(containers, name), []byte(line), 0o600); err != nil {
			return "", err
		}
	}
	file := filepath.Join(folder, "kubelet.yaml")
	return file, os.WriteFile(file, fmt.Appendf(stages, logs, containers), 0o600)
}

// start starts all parts and installs the operator, its kind and the nodes.
func (p *plane) start() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	install, err := newInstaller(ctx, p.admin)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	own := func(name string) []byte {
		content, readErr := os.ReadFile(filepath.Join(filepath.Dir(program), "operator", name))
		err = errors.Join(err, readErr)
		return content
	}
	crd, role, webhook := own("crd.yaml"), own("role.yaml"), own("webhook.yaml")
	if err != nil {
		return err
	}
	operator := p.part("operator")
	steps := []func() error{
		p.part("etcd").start,
		p.part("kube-apiserver").start,
		func() error { return install.ready("/readyz") },
		p.part("controllers").start,
		p.part("kube-scheduler").start,
		func() error { return install.manifests(crd) },
		func() error { return install.manifests(role) },
		install.operatorRights,
		install.jobs,
		operator.start,
		install.fakeNodes,
		p.part("kwok").start,
		func() error { return install.until(operator.listens) },
		func() error { return install.webhook(webhook, operator.port, p.access.authority) },
		func() error { return install.ready("/api/v1/namespaces/default/serviceaccounts/default") },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (p *plane) order(line string) error {
	verb, name, _ := strings.Cut(line, " ")
	if verb == "install" {
		return p.install(strings.Fields(name))
	}
	part := p.part(name)
	if part == nil {
		return fmt.Errorf("no such part: %q", name)
	}
	switch verb {
	case "kill":
		part.kill()
		return nil
	case "start":
		return p.startAgain(part)
	}
	return fmt.Errorf("no such order: %q", line)
}

// startAgain starts a part that was killed and waits until it serves.
func (p *plane) startAgain(part *part) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	install, err := newInstaller(ctx, p.admin)
	if err != nil {
		return err
	}
	if err := part.start(); err != nil {
		return err
	}
	if part.port != 0 {
		return install.until(part.listens)
	}
	return install.ready("/readyz")
}

func (p *plane) part(name string) *part {
	for _, part := range p.parts {
		if part.name == name {
			return part
		}
	}
	return nil
}

// tellLogs prints how the log of each part ends.
func (p *plane) tellLogs() {
	for _, part := range p.parts {
		log, err := os.ReadFile(part.log())
		if err != nil {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s: ...%s\n", part.name, log[max(0, len(log)-1000):])
	}
}

// end kills everything, clients before their servers, and removes the folder:
// nobody needs time to put it in order.
func (p *plane) end() {
	for number := len(p.parts) - 1; number >= 0; number-- {
		p.parts[number].kill()
	}
	_ = os.RemoveAll(p.folder)
}

// freePorts are ports that nothing listens on, from below the range that the
// kernel hands out to outgoing connections.
func freePorts(count int) ([]string, error) {
	var ports []string
	for tries := 0; tries < 1000; tries++ {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000)))
		if err != nil {
			continue
		}
		defer listener.Close()
		_, port, err := net.SplitHostPort(listener.Addr().String())
		if err != nil {
			return nil, err
		}
		if ports = append(ports, port); len(ports) == count {
			return ports, nil
		}
	}
	return nil, errors.New("no free ports")
}
