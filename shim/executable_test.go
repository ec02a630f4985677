package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The executable that these tests run is built once, in the way the wheel's is.
var (
	buildOnce sync.Once
	buildDir  string
	buildErr  error
)

func TestMain(m *testing.M) {
	code := m.Run()
	if buildDir != "" {
		os.RemoveAll(buildDir)
	}
	os.Exit(code)
}

func executable(t *testing.T) string {
	t.Helper()
	buildOnce.Do(func() {
		if buildDir, buildErr = os.MkdirTemp("", "podvif-cni-"); buildErr != nil {
			return
		}
		if buildErr = os.Chmod(buildDir, 0o755); buildErr == nil { // Another user runs it in one test.
			stamps := "-s -w -buildid= -X main.version=4.5.6 -X main.supportedVersions=" + strings.Join(knownVersions, ",")
			buildErr = build(filepath.Join(buildDir, "podvif-cni"), stamps)
		}
	})
	if buildErr != nil {
		t.Fatal(buildErr)
	}
	return filepath.Join(buildDir, "podvif-cni")
}

func build(output, stamps string) error {
	command := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", stamps, "-o", output, ".")
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if said, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, said)
	}
	return nil
}

// execute runs the executable as a runtime does, and returns what the runtime sees.
func execute(t *testing.T, command *exec.Cmd) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if command.Stdout == nil {
		command.Stdout = &stdout
	}
	command.Stderr = &stderr
	if err := command.Run(); command.ProcessState == nil {
		t.Error(err) // Not Fatal: some calls run on goroutines of their own.
		return outcome{code: -1}
	}
	return outcome{code: command.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
}

func at(socket string) *strings.Reader {
	return strings.NewReader(fmt.Sprintf(`{"cniVersion":"1.1.0","name":"n","type":"podvif-cni","daemonSocket":%q}`, socket))
}

// The executable sends CNI_* and TRACEPARENT of its own environment and stdin, prints the answer, and exits with its code.
func TestExecutable(t *testing.T) {
	for _, code := range []int{0, 1, 7, 255} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			socket, requests := answering(t, goodReply(t, code, "the answer\n"))
			command := exec.Command(executable(t))
			command.Env = []string{"CNI_COMMAND=ADD", "CNI_IFNAME=eth0", "TRACEPARENT=00-1-2-3", "SECRET=x", "PATH=/bin"}
			command.Stdin = at(socket)
			got := execute(t, command)
			if want := (outcome{code: code, stdout: "the answer\n"}); got != want {
				t.Errorf("outcome %+v, want %+v", got, want)
			}
			var request asked
			if err := json.Unmarshal(<-requests, &request); err != nil {
				t.Fatal(err)
			}
			env := map[string]string{"CNI_COMMAND": "ADD", "CNI_IFNAME": "eth0", "TRACEPARENT": "00-1-2-3"}
			if request.Shim != "4.5.6" || !reflect.DeepEqual(request.Env, env) {
				t.Errorf("the daemon read %+v", request)
			}
		})
	}
}

// Without a daemon the executable answers VERSION from its own list, and every other verb with an error and exit code 1.
func TestExecutableWithoutDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none")
	for _, verb := range allVerbs {
		t.Run(verb, func(t *testing.T) {
			command := exec.Command(executable(t))
			command.Env = []string{"CNI_COMMAND=" + verb}
			command.Stdin = at(socket)
			wantNoAnswer(t, execute(t, command), verb, socket, "no such file or directory")
		})
	}
}

// A user who may not use the socket is told that it is root's.
func TestExecutableWithoutRights(t *testing.T) {
	socket, _ := answering(t, goodReply(t, 0, "for root only"))
	// The folders above are the test's own: open them, so that the socket's mode alone decides.
	for folder := filepath.Dir(socket); folder != os.TempDir() && folder != "/"; folder = filepath.Dir(folder) {
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(socket, 0); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(executable(t))
	if os.Geteuid() == 0 {
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	command.Env = []string{"CNI_COMMAND=ADD"}
	command.Stdin = at(socket)
	document := wantError(t, execute(t, command), 11, socket, "permission denied")
	if !strings.Contains(document["details"].(string), "root") {
		t.Errorf("details do not say what to do: %s", document["details"])
	}
}

// The executable does not report success when its stdout is full or closed.
func TestExecutableUnwritableStdout(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	reader, closed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
	defer closed.Close()
	socket, _ := answering(t, goodReply(t, 0, "the answer"))
	for name, stdout := range map[string]*os.File{"full": full, "closed": closed} {
		t.Run(name, func(t *testing.T) {
			command := exec.Command(executable(t))
			command.Stdin, command.Stdout = at(socket), stdout
			if got := execute(t, command); got.code == 0 {
				t.Errorf("outcome %+v", got)
			}
		})
	}
}

// A hundred calls at once are all served by a daemon that takes one connection at a time.
func TestExecutableAtOnce(t *testing.T) {
	server := fullBacklog(t)
	server.accept(t).Close()
	path := executable(t)
	const calls = 100
	done := make(chan outcome, calls)
	for i := 0; i < calls; i++ {
		go func() {
			command := exec.Command(path)
			command.Env = []string{"CNI_COMMAND=ADD"}
			command.Stdin = at(server.path)
			done <- execute(t, command)
		}()
	}
	for i := 0; i < calls; i++ {
		conn := server.accept(t)
		if _, err := readFrame(conn); err != nil {
			t.Error(err)
		}
		conn.Write(goodReply(t, 0, "served"))
		conn.Close()
	}
	for i := 0; i < calls; i++ {
		if got := <-done; got != (outcome{stdout: "served"}) {
			t.Errorf("outcome %+v", got)
		}
	}
}

// The executable has at most 4 MB on disk and needs no shared library.
func TestExecutableSize(t *testing.T) {
	file, err := os.Stat(executable(t))
	if err != nil {
		t.Fatal(err)
	}
	if file.Size() > 4e6 {
		t.Errorf("%d bytes", file.Size())
	}
	said, err := exec.Command("go", "list", "-deps", "-f", "{{.ImportPath}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dependency := range strings.Fields(string(said)) {
		if dependency == "net" || dependency == "runtime/cgo" || dependency == "C" {
			t.Errorf("imports %s", dependency)
		}
	}
}

// An executable that was built without its stamps refuses every call and says how to get one that has them.
func TestExecutableWithoutStamps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bare")
	if err := build(path, ""); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(path)
	command.Env = []string{"CNI_COMMAND=VERSION"}
	start := time.Now()
	got := execute(t, command)
	if got.code == 0 || got.stdout != "" || !strings.Contains(got.stderr, "pip install podvif") {
		t.Errorf("outcome %+v after %v", got, time.Since(start))
	}
}
