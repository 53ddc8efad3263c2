package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// part is one process of the control plane: this binary under the part's name, or a program beside it.
type part struct {
	name string
	// The program beside this one, for a part that is not in this one.
	program   string
	folder    string
	arguments []string
	// Where its webhooks listen, if it has any.
	port    int
	process *exec.Cmd
}

// command is the part's process, not yet started.
func (p *part) command() (*exec.Cmd, error) {
	here, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if p.program != "" {
		return exec.Command(filepath.Join(filepath.Dir(here), p.program), p.arguments...), nil
	}
	return exec.Command(here, append([]string{p.name}, p.arguments...)...), nil
}

func (p *part) log() string {
	return filepath.Join(p.folder, "logs", p.name+".log")
}

// start starts the part. Its log is appended to over restarts.
func (p *part) start() error {
	if p.process != nil {
		return fmt.Errorf("%s runs already", p.name)
	}
	process, err := p.command()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(p.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	process.Dir = p.folder
	process.Stdout, process.Stderr = log, log
	// It dies with this process, however that ends. A group of its own keeps a
	// terminal's Ctrl-C from it: this process ends it.
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := process.Start(); err != nil {
		return err
	}
	p.process = process
	return nil
}

// kill ends the part at once, as the kernel does to one that takes too much memory.
func (p *part) kill() {
	if p.process == nil {
		return
	}
	_ = p.process.Process.Kill()
	_ = p.process.Wait()
	p.process = nil
}
