package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// The verbs that differ from the rest, here only in their deadline and in what is said when nobody answers.
const (
	verbAdd     = "ADD"
	verbStatus  = "STATUS"
	verbVersion = "VERSION"
)

// call is one run of the plugin: all that it sees of the world, and what the build told it.
type call struct {
	environ        func() []string // "KEY=value" each, as os.Environ
	stdin          io.Reader
	stdout, stderr io.Writer
	socket         string   // used when the configuration names none
	version        string   // of this program
	supported      []string // CNI versions, oldest first, never empty
}

// run makes the call and returns the exit code of the process.
func (c call) run() int {
	env := forwarded(c.environ())
	verb := env["CNI_COMMAND"]
	stdin, failed := readConfiguration(c.stdin)
	conf := parse(stdin)
	if failed == nil {
		var answer reply
		if answer, failed = c.ask(verb, env, stdin, conf); failed == nil {
			return c.print(answer.stdout, answer.code)
		}
	}
	return c.print(c.document(verb, conf.cniVersion, failed))
}

// ask sends the call to the daemon and returns its answer.
func (c call) ask(verb string, env map[string]string, stdin []byte, conf configuration) (reply, *failure) {
	server := daemon{socket: conf.socket, timeout: conf.timeout}
	if server.socket == "" {
		server.socket = c.socket
	}
	if server.timeout == 0 {
		server.timeout = defaultTimeout(verb)
	}
	frame, failed := encode(request{Shim: c.version, Env: env, Stdin: stdin})
	if failed != nil {
		return reply{}, failed
	}
	payload, failed := server.exchange(frame)
	if failed != nil {
		return reply{}, failed
	}
	return server.decode(payload)
}

// print writes the text on stdout and returns the exit code: the given one, or, if the text could not be written, one that
// is not 0, since a runtime that read half of an answer must not take it for the whole.
func (c call) print(text string, code int) int {
	if _, err := io.WriteString(c.stdout, text); err != nil {
		fmt.Fprintf(c.stderr, "podvif-cni: the answer could not be written on stdout: %v\n", err)
		if code == 0 {
			return 1
		}
	}
	return code
}

// forwarded picks the variables that the daemon is told: those of CNI, and the trace that the call belongs to. The rest of
// a runtime's environment is none of the daemon's business and may hold secrets.
func forwarded(environ []string) map[string]string {
	env := map[string]string{}
	for _, entry := range environ {
		key, value, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(key, "CNI_") || key == "TRACEPARENT" {
			env[key] = value
		}
	}
	return env
}

// defaultTimeout is how long connecting, asking and answering may take together when the configuration does not say. ADD
// waits for other programs, so it gets more than the daemon's own limit (180 s) and less than the kubelet's (240 s);
// STATUS is asked while a runtime holds a lock.
func defaultTimeout(verb string) time.Duration {
	switch verb {
	case verbAdd:
		return 200 * time.Second
	case verbStatus:
		return 2 * time.Second
	}
	return 60 * time.Second
}
