// Command nri-plugin is a plugin of the Node Resource Interface, written with the public library, that the integration tests
// run. It writes down what it is told, one JSON object a line, and does what its configuration says: as a pre-installed plugin
// it gets that from the runtime, as an external one from its command line.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
)

// config is what the tests decide.
type config struct {
	// Events is the file that events are appended to.
	Events string `json:"events"`
	// Adjust says whether new containers get a variable, a mount and limits.
	Adjust bool `json:"adjust"`
	// Mount is the directory that they get on /nri.
	Mount string `json:"mount"`
	// Hooks are OCI hooks that they get as well.
	Hooks *api.Hooks `json:"hooks"`
	// Device is the name of a CDI device that they get as well.
	Device string `json:"device"`
	// OnCreate is what happens when a container is made: "hang", "die", or nothing.
	OnCreate string `json:"onCreate"`
	// Refuse is the name of pods that must not run.
	Refuse string `json:"refuse"`
	// MostMemory is the largest memory limit of a pod; 0 for any.
	MostMemory int64 `json:"mostMemory"`
}

// event is a line of the file.
type event struct {
	Event      string   `json:"event"`
	Pod        string   `json:"pod,omitempty"`
	Container  string   `json:"container,omitempty"`
	Pods       []string `json:"pods,omitempty"`
	Containers []string `json:"containers,omitempty"`
	Env        []string `json:"env,omitempty"`
	Devices    []string `json:"devices,omitempty"`
	Hooks      []string `json:"hooks,omitempty"`
	Memory     int64    `json:"memory,omitempty"`
	Overhead   int64    `json:"overhead,omitempty"`
	Pid        uint32   `json:"pid,omitempty"`
}

const (
	memoryLimit  = 48 << 20
	updatedLimit = 96 << 20
	pidLimit     = 77
)

type plugin struct {
	stub stub.Stub

	mu         sync.Mutex
	config     config
	containers map[string]struct{}
}

func (p *plugin) write(e event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	line, err := json.Marshal(e)
	if err == nil {
		var file *os.File
		file, err = os.OpenFile(p.config.Events, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = file.Write(append(line, '\n'))
			err = errors.Join(err, file.Close())
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "nri-plugin: cannot write the event:", err)
		os.Exit(1)
	}
}

func (p *plugin) tell(name string, pod *api.PodSandbox, container *api.Container) {
	p.write(event{Event: name, Pod: pod.GetName(), Container: container.GetName(), Pid: container.GetPid()})
}

func (p *plugin) Configure(_ context.Context, text, runtime, version string) (api.EventMask, error) {
	if text != "" {
		if err := json.Unmarshal([]byte(text), &p.config); err != nil {
			return 0, err
		}
	}
	p.write(event{Event: "Configure", Pods: []string{runtime}})
	return 0, nil
}

func (p *plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	e := event{Event: "Synchronize"}
	for _, pod := range pods {
		e.Pods = append(e.Pods, pod.GetName())
	}
	for _, container := range containers {
		e.Containers = append(e.Containers, container.GetName())
		e.Env = append(e.Env, container.GetEnv()...)
		p.know(container)
	}
	p.write(e)
	return nil, nil
}

func (p *plugin) know(container *api.Container) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.containers[container.GetId()] = struct{}{}
}

func (p *plugin) RunPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.tell("RunPodSandbox", pod, nil)
	if p.config.Refuse != "" && pod.GetName() == p.config.Refuse {
		return errors.New("no such pod on my node")
	}
	return nil
}

func (p *plugin) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.tell("StopPodSandbox", pod, nil)
	return nil
}

func (p *plugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.tell("RemovePodSandbox", pod, nil)
	return nil
}

func (p *plugin) CreateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	p.tell("CreateContainer", pod, container)
	switch p.config.OnCreate {
	case "hang":
		select {}
	case "die":
		os.Exit(1)
	}
	p.know(container)
	adjust := &api.ContainerAdjustment{}
	if p.config.Hooks != nil {
		adjust.AddHooks(p.config.Hooks)
	}
	if p.config.Device != "" {
		adjust.AddCDIDevice(&api.CDIDevice{Name: p.config.Device})
	}
	if !p.config.Adjust {
		return adjust, nil, nil
	}
	adjust.AddEnv("NRI_ADDED", "by the plugin")
	adjust.AddMount(&api.Mount{
		Source: p.config.Mount, Destination: "/nri", Type: "bind", Options: []string{"rbind", "ro"},
	})
	adjust.SetLinuxMemoryLimit(memoryLimit)
	adjust.SetLinuxPidLimits(pidLimit)
	adjust.AddRlimit("RLIMIT_CORE", 4096, 4096)
	return adjust, nil, nil
}

func (p *plugin) PostCreateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	e := event{Event: "PostCreateContainer", Pod: pod.GetName(), Container: container.GetName()}
	for _, device := range container.GetCDIDevices() {
		e.Devices = append(e.Devices, device.GetName())
	}
	for _, hook := range container.GetHooks().GetCreateContainer() {
		e.Hooks = append(e.Hooks, hook.GetPath())
	}
	p.write(e)
	return nil
}

func (p *plugin) StartContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	p.tell("StartContainer", pod, container)
	return nil
}

func (p *plugin) PostStartContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	p.tell("PostStartContainer", pod, container)
	return nil
}

func (p *plugin) UpdateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container, limits *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	p.write(event{
		Event: "UpdateContainer", Pod: pod.GetName(), Container: container.GetName(),
		Memory: limits.GetMemory().GetLimit().GetValue(),
	})
	if !p.config.Adjust {
		return nil, nil
	}
	return []*api.ContainerUpdate{limited(container.GetId(), updatedLimit)}, nil
}

func (p *plugin) PostUpdateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	p.tell("PostUpdateContainer", pod, container)
	return nil
}

func (p *plugin) StopContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) ([]*api.ContainerUpdate, error) {
	p.tell("StopContainer", pod, container)
	return nil, nil
}

func (p *plugin) RemoveContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	p.tell("RemoveContainer", pod, container)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.containers, container.GetId())
	return nil
}

func (p *plugin) UpdatePodSandbox(_ context.Context, pod *api.PodSandbox, overhead, limits *api.LinuxResources) error {
	p.tellLimits("UpdatePodSandbox", pod, overhead, limits)
	if limits.GetMemory().GetLimit().GetValue() > p.config.MostMemory && p.config.MostMemory > 0 {
		return errors.New("more memory than a pod may have")
	}
	return nil
}

func (p *plugin) PostUpdatePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	linux := pod.GetLinux()
	p.tellLimits("PostUpdatePodSandbox", pod, linux.GetPodOverhead(), linux.GetPodResources())
	return nil
}

func (p *plugin) tellLimits(name string, pod *api.PodSandbox, overhead, limits *api.LinuxResources) {
	p.write(event{
		Event: name, Pod: pod.GetName(),
		Overhead: overhead.GetMemory().GetLimit().GetValue(), Memory: limits.GetMemory().GetLimit().GetValue(),
	})
}

func (p *plugin) ValidateContainerAdjustment(_ context.Context, request *api.ValidateContainerAdjustmentRequest) error {
	p.tell("ValidateContainerAdjustment", request.GetPod(), request.GetContainer())
	return nil
}

func limited(id string, limit int64) *api.ContainerUpdate {
	update := &api.ContainerUpdate{}
	update.SetContainerId(id)
	update.SetLinuxMemoryLimit(limit)
	return update
}

// update asks, unasked, for another limit of all containers that are known.
func (p *plugin) update() {
	var updates []*api.ContainerUpdate
	p.mu.Lock()
	for id := range p.containers {
		updates = append(updates, limited(id, updatedLimit))
	}
	p.mu.Unlock()
	failed, err := p.stub.UpdateContainers(updates)
	e := event{Event: "Updated", Memory: int64(len(failed))}
	if err != nil {
		e.Event = "UpdateFailed: " + err.Error()
	}
	p.write(e)
}

func run() error {
	p := &plugin{containers: map[string]struct{}{}}
	var options []stub.Option
	if os.Getenv(api.PluginSocketEnvVar) == "" {
		socket := flag.String("socket", "", "the runtime's socket")
		name := flag.String("name", "", "the plugin's name")
		index := flag.String("index", "", "the plugin's index")
		text := flag.String("config", "{}", "the configuration, as JSON")
		flag.Parse()
		if err := json.Unmarshal([]byte(*text), &p.config); err != nil {
			return err
		}
		options = append(options, stub.WithSocketPath(*socket), stub.WithPluginName(*name), stub.WithPluginIdx(*index))
	}
	var err error
	if p.stub, err = stub.New(p, options...); err != nil {
		return err
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	go func() {
		for range asked {
			p.update()
		}
	}()
	return p.stub.Run(context.Background())
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "nri-plugin:", err)
		os.Exit(1)
	}
}
