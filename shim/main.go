// Command podvif-cni is the CNI plugin that a container runtime runs: it hands each call to the node daemon and prints
// what the daemon answers.
//
// It knows no CNI semantics. The daemon validates, decides and words every answer; this program forwards the CNI_*
// variables, TRACEPARENT and the raw bytes of stdin, prints the answer as it is and exits with the answer's code. Only
// when there is no answer to print does it speak for itself: a CNI error document, or, for VERSION, the list of versions
// that was built into it. A broken answer is an error, never an empty success.
//
// # The message
//
// One connection to the daemon's unix stream socket carries one request and one reply. Each is a frame: its length as
// four bytes, unsigned, big-endian, then so many bytes of UTF-8 JSON, 16 MiB at the most.
//
//	request  {"shim": "<version of this program>",
//	          "env": {"CNI_COMMAND": "ADD", ..., "TRACEPARENT": "..."},
//	          "stdin": "<base64 of the bytes on stdin>"}
//	reply    {"code": <exit code, 0 to 255>, "stdout": "<text to print as it is>"}
//
// # The configuration
//
// Of the network configuration on stdin it reads three keys, and only if the whole is a JSON object: cniVersion, for the
// documents that it writes itself; daemonSocket, the path of the socket; daemonTimeout, the seconds that connecting,
// asking and answering may take together. A key that is absent or of the wrong type counts as its default, because the
// call then still reaches the daemon, and the daemon is the one who refuses it, by name.
package main

import (
	"fmt"
	"os"
	"strings"
)

// defaultSocket is where the daemon listens unless its [node] cni_socket says otherwise.
const defaultSocket = "/var/run/podvif/cni.sock"

// The build sets both (-ldflags "-X main.version=... -X main.supportedVersions=..."). They have no defaults here, because
// the facts have their home elsewhere: the version in the package's metadata, the list in the daemon's source.
var (
	version           string
	supportedVersions string // comma-separated, oldest first
)

func main() {
	if version == "" || supportedVersions == "" {
		fmt.Fprintln(os.Stderr, "podvif-cni: this executable was built without its version and its list of CNI versions;"+
			" install the one that the podvif package carries (pip install podvif)")
		os.Exit(1)
	}
	call := call{
		environ:   os.Environ,
		stdin:     os.Stdin,
		stdout:    os.Stdout,
		stderr:    os.Stderr,
		socket:    defaultSocket,
		version:   version,
		supported: strings.Split(supportedVersions, ","),
	}
	os.Exit(call.run())
}
