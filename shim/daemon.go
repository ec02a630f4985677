package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

const (
	// maxPayload is the most bytes of JSON that one frame may carry.
	maxPayload = 16 << 20
	// maxSocketPath is the most bytes of a path that the kernel's sockaddr_un takes beside its closing NUL.
	maxSocketPath = 107
)

// request is what the daemon is asked. Stdin goes out in base64, because it may be anything.
type request struct {
	Shim  string            `json:"shim"`
	Env   map[string]string `json:"env"`
	Stdin []byte            `json:"stdin"`
}

// reply is what the daemon answers.
type reply struct {
	code   int
	stdout string
}

// daemon is the far end.
type daemon struct {
	socket  string
	timeout time.Duration // for connecting, writing and reading together
}

// encode makes the frame of a request, and refuses one that is too large.
func encode(r request) ([]byte, *failure) {
	payload, err := json.Marshal(r)
	if err != nil {
		panic(err) // Strings and bytes always encode.
	}
	if len(payload) > maxPayload {
		return nil, &failure{
			code:    codeInvalidConfig,
			msg:     "the network configuration on stdin is too large: in base64 it has to fit into a message of 16 MiB",
			details: "Make the configuration smaller: about 12 MiB is the most.",
		}
	}
	frame := make([]byte, 4, 4+len(payload))
	binary.BigEndian.PutUint32(frame, uint32(len(payload)))
	return append(frame, payload...), nil
}

// exchange sends the frame and returns the payload of the frame that comes back.
func (d daemon) exchange(frame []byte) ([]byte, *failure) {
	if why := whyNotSocketPath(d.socket); why != "" {
		return nil, &failure{
			code:    codeInvalidConfig,
			msg:     fmt.Sprintf("podvif daemon: the socket path %q %s", d.socket, why),
			details: "Correct daemonSocket in the network configuration, and [node] cni_socket of the daemon with it.",
		}
	}
	deadline := time.Now().Add(d.timeout)
	conn, err := connect(d.socket, deadline)
	if err != nil {
		return nil, d.unreachable(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, d.unreachable(err)
	}
	if _, err := conn.Write(frame); err != nil {
		return nil, d.unreachable(err)
	}
	var prefix [4]byte
	if n, err := io.ReadFull(conn, prefix[:]); n == 0 && err != nil {
		return nil, d.unreachable(err)
	} else if err != nil {
		return nil, d.broken("the reply was cut short within its length: %v", d.cause(err))
	}
	size := binary.BigEndian.Uint32(prefix[:])
	if size == 0 {
		return nil, d.broken("the reply is empty")
	}
	if size > maxPayload {
		return nil, d.broken("the reply announces %d bytes, more than the 16 MiB that are allowed", size)
	}
	payload := make([]byte, size)
	if n, err := io.ReadFull(conn, payload); err != nil {
		return nil, d.broken("the reply was cut short after %d of %d bytes: %v", n, size, d.cause(err))
	}
	return payload, nil
}

// decode reads the payload of a reply.
func (d daemon) decode(payload []byte) (reply, *failure) {
	if !utf8.Valid(payload) {
		return reply{}, d.broken("the reply is no UTF-8")
	}
	var fields struct { // Pointers tell an absent key from a zero.
		Code   *int    `json:"code"`
		Stdout *string `json:"stdout"`
	}
	if err := json.Unmarshal(payload, &fields); err != nil {
		return reply{}, d.broken("the reply is no JSON of the agreed form: %v", err)
	}
	if fields.Code == nil || fields.Stdout == nil {
		return reply{}, d.broken("the reply lacks \"code\" or \"stdout\"")
	}
	answer := reply{code: *fields.Code, stdout: *fields.Stdout}
	if answer.code < 0 || answer.code > 255 {
		// The kernel keeps eight bits of an exit code: 256 would be a success.
		return reply{}, d.broken("the reply's code %d is no exit code", answer.code)
	}
	if answer.code != 0 && strings.TrimSpace(answer.stdout) == "" {
		return reply{}, d.broken("the call failed with code %d and without an error document", answer.code)
	}
	return answer, nil
}

// unreachable is the failure of a daemon from which not one byte came.
func (d daemon) unreachable(err error) *failure {
	failed := &failure{msg: fmt.Sprintf("podvif daemon at %s: %v", d.socket, d.cause(err))}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		failed.details = "The daemon's log says what it waits for. daemonTimeout in the network configuration (seconds)" +
			" gives it more time."
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		failed.details = "The daemon does not run on this node, or listens elsewhere: start podvif node, or let" +
			" daemonSocket in the network configuration name the daemon's [node] cni_socket."
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		failed.details = "Only root may use the socket: run the plugin as root, as container runtimes do."
	default:
		failed.details = "See whether podvif node runs on this node, and its log; it may just be restarting."
	}
	return failed
}

// broken is the failure of a daemon that answered something that cannot be used.
func (d daemon) broken(format string, values ...any) *failure {
	return &failure{
		answered: true,
		msg:      fmt.Sprintf("podvif daemon at %s: %s", d.socket, fmt.Sprintf(format, values...)),
		details: "The daemon ended while it answered, or it and podvif-cni are of different versions: see its log," +
			" and install both from one podvif package.",
	}
}

// cause words an error for a person, without the names of system calls.
func (d daemon) cause(err error) string {
	var errno syscall.Errno
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Sprintf("no answer within %g s", d.timeout.Seconds())
	case err == io.EOF, err == io.ErrUnexpectedEOF, errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "it closed the connection"
	case errors.As(err, &errno):
		return errno.Error()
	}
	return err.Error()
}

// whyNotSocketPath says why the kernel would refuse a path, or silently use another one; "" if it does neither.
func whyNotSocketPath(path string) string {
	if len(path) > maxSocketPath {
		return fmt.Sprintf("has %d bytes, and a unix socket's path has %d at the most", len(path), maxSocketPath)
	}
	if strings.IndexByte(path, 0) >= 0 {
		return "holds a NUL byte"
	}
	return ""
}

// connect opens a connection to the socket.
//
// The socket still blocks while it connects, unlike one of package net: a non-blocking connect fails at once with EAGAIN
// while the daemon's backlog is full, as it is when many pods start together, and a blocking one waits for its turn.
// SO_SNDTIMEO bounds that wait. Doing without package net also saves a quarter of the executable and 0.1 ms of its start.
func connect(path string, deadline time.Time) (*os.File, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err = connectBefore(fd, path, deadline); err == nil {
		// From here on the runtime's poller keeps the deadline.
		err = syscall.SetNonblock(fd, true)
	}
	if err != nil {
		syscall.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// connectBefore connects, and returns os.ErrDeadlineExceeded if the deadline passes first.
func connectBefore(fd int, path string, deadline time.Time) error {
	for {
		left := time.Until(deadline)
		if left < time.Microsecond { // A time-out of zero microseconds would mean none at all.
			return os.ErrDeadlineExceeded
		}
		limit := syscall.NsecToTimeval(left.Nanoseconds())
		if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &limit); err != nil {
			return err
		}
		switch err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}); err {
		case syscall.EINTR: // A signal to the Go runtime itself; the time that is left has shrunk.
		case syscall.EAGAIN:
			return os.ErrDeadlineExceeded
		default:
			return err
		}
	}
}
