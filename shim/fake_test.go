package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// The words of the world that the tests share.
var (
	knownVersions = []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}
	allVerbs      = []string{"ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION"}
)

// asked is a request as the daemon reads it.
type asked struct {
	Shim  string            `json:"shim"`
	Env   map[string]string `json:"env"`
	Stdin []byte            `json:"stdin"`
}

// listen makes a daemon's socket; each connection to it is handed to serve on a goroutine of its own.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return path
}

// answering is a daemon that reads one request, passes it on, and answers these bytes.
func answering(t *testing.T, raw []byte) (socket string, requests <-chan []byte) {
	t.Helper()
	seen := make(chan []byte, 100)
	return listen(t, func(conn net.Conn) {
		payload, err := readFrame(conn)
		if err != nil {
			return
		}
		seen <- payload
		conn.Write(raw)
	}), seen
}

// readFrame is the daemon's half of the protocol, written apart from the code under test.
func readFrame(conn io.Reader) ([]byte, error) {
	var size uint32
	if err := binary.Read(conn, binary.BigEndian, &size); err != nil {
		return nil, err
	}
	payload := make([]byte, size)
	_, err := io.ReadFull(conn, payload)
	return payload, err
}

// frame puts the length before a payload.
func frame(payload string) []byte {
	return append(lengthOf(uint32(len(payload))), payload...)
}

func lengthOf(size uint32) []byte {
	return []byte{byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size)}
}

// goodReply is the frame of an ordinary answer.
func goodReply(t *testing.T, code int, stdout string) []byte {
	t.Helper()
	payload, err := json.Marshal(map[string]any{"code": code, "stdout": stdout})
	if err != nil {
		t.Fatal(err)
	}
	return frame(string(payload))
}

// outcome is what a runtime sees of a call.
type outcome struct {
	code           int
	stdout, stderr string
}

// makeCall runs a call in this process, with a socket for want of one in the configuration.
func makeCall(socket string, stdin io.Reader, environ ...string) outcome {
	var stdout, stderr bytes.Buffer
	code := call{
		environ:   func() []string { return environ },
		stdin:     stdin,
		stdout:    &stdout,
		stderr:    &stderr,
		socket:    socket,
		version:   "4.5.6",
		supported: knownVersions,
	}.run()
	return outcome{code: code, stdout: stdout.String(), stderr: stderr.String()}
}

// wantError checks that a call ended as an error of CNI and returns the document.
func wantError(t *testing.T, got outcome, code int, words ...string) map[string]any {
	t.Helper()
	var document map[string]any
	if err := json.Unmarshal([]byte(got.stdout), &document); err != nil {
		t.Fatalf("stdout is no document: %v: %.200q", err, got.stdout)
	}
	if got.code != 1 || document["code"] != float64(code) {
		t.Errorf("exit code %d and CNI code %v, want 1 and %d", got.code, document["code"], code)
	}
	if len(document) != 4 || document["cniVersion"] == "" || document["details"] == "" {
		t.Errorf("the document wants cniVersion, code, msg and details: %s", got.stdout)
	}
	for _, word := range words {
		if !strings.Contains(document["msg"].(string), word) {
			t.Errorf("msg does not say %q: %s", word, document["msg"])
		}
	}
	// containerd takes an error of DEL with these words for a success.
	if strings.Contains(got.stdout, "not found") {
		t.Errorf("an error must not say %q: %s", "not found", got.stdout)
	}
	return document
}

// wantVersions checks that a call was answered with the list built in.
func wantVersions(t *testing.T, got outcome, cniVersion string) {
	t.Helper()
	want := `{"cniVersion":"` + cniVersion + `","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}` + "\n"
	if got.code != 0 || got.stdout != want {
		t.Errorf("exit code %d and %q, want 0 and %q", got.code, got.stdout, want)
	}
}

// wantNoAnswer checks what each verb says when there is no answer of the daemon.
func wantNoAnswer(t *testing.T, got outcome, verb string, words ...string) {
	t.Helper()
	switch verb {
	case "VERSION":
		wantVersions(t, got, "1.1.0")
	case "STATUS":
		wantError(t, got, 50, words...)
	default:
		wantError(t, got, 11, words...)
	}
}
