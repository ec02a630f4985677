package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

// The daemon is told the CNI_* variables and TRACEPARENT, nothing else of the environment, and stdin byte for byte.
func TestForwards(t *testing.T) {
	trace := "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	tests := []struct {
		name    string
		stdin   string
		environ []string
		env     map[string]string
	}{
		{
			name:  "a usual call",
			stdin: `{"cniVersion":"1.1.0","name":"dpdk-net","type":"podvif-cni"}`,
			environ: []string{
				"PATH=/bin", "CNI_COMMAND=ADD", "CNI_ARGS=K8S_POD_NAME=a;MAC=b", "AWS_SECRET=x", "TRACEPARENT=" + trace,
				"TRACESTATE=y", "XCNI_A=z", "CNI=z", "cni_path=z", "CNI_NETNS=",
			},
			env: map[string]string{
				"CNI_COMMAND": "ADD", "CNI_ARGS": "K8S_POD_NAME=a;MAC=b", "CNI_NETNS": "", "TRACEPARENT": trace,
			},
		},
		{name: "nothing at all", stdin: "", env: map[string]string{}},
		{name: "not JSON", stdin: "{oops", environ: []string{"CNI_COMMAND=ADD"}, env: map[string]string{"CNI_COMMAND": "ADD"}},
		{name: "not text", stdin: "\x00\xff\xfe\n", environ: []string{"CNI_X=ä <&>"}, env: map[string]string{"CNI_X": "ä <&>"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			socket, requests := answering(t, goodReply(t, 0, "{}"))
			if got := makeCall(socket, strings.NewReader(test.stdin), test.environ...); got != (outcome{stdout: "{}"}) {
				t.Errorf("outcome %+v", got)
			}
			decoder := json.NewDecoder(bytes.NewReader(<-requests))
			decoder.DisallowUnknownFields()
			var got asked
			if err := decoder.Decode(&got); err != nil {
				t.Fatal(err)
			}
			want := asked{Shim: "4.5.6", Env: test.env, Stdin: []byte(test.stdin)}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("the daemon read %+v, want %+v", got, want)
			}
		})
	}
}

// The daemon's text is printed as it is and its code is the exit code, whether that is a success or not.
func TestPrintsTheAnswer(t *testing.T) {
	tests := []struct {
		code   int
		stdout string
	}{
		{0, ""}, // A DEL that succeeded says nothing.
		{0, "{\n    \"cniVersion\": \"1.1.0\"\n}\n"},
		{0, "no JSON, <&> ä\x00 and no newline"},
		{1, `{"code":7,"msg":"mtu: not found"}`},
		{255, "x"},
	}
	for _, test := range tests {
		for _, verb := range allVerbs {
			t.Run(fmt.Sprint(test.code, verb), func(t *testing.T) {
				socket, _ := answering(t, goodReply(t, test.code, test.stdout))
				got := makeCall(socket, strings.NewReader("{}"), "CNI_COMMAND="+verb)
				if want := (outcome{code: test.code, stdout: test.stdout}); got != want {
					t.Errorf("outcome %+v, want %+v", got, want)
				}
			})
		}
	}
}

// A newer daemon that says more in its reply than this program knows of is understood all the same.
func TestAnswerOfANewerDaemon(t *testing.T) {
	socket, _ := answering(t, frame(`{"version":"0.99.0","code":0,"stdout":"known","trace":{"spans":[1]}}`))
	if got := makeCall(socket, strings.NewReader("{}")); got != (outcome{stdout: "known"}) {
		t.Errorf("outcome %+v", got)
	}
}

// A daemon that lives and answers in pieces, one byte at a time, is understood.
func TestAnswerInPieces(t *testing.T) {
	reply := goodReply(t, 0, "whole")
	socket := listen(t, func(conn net.Conn) {
		if _, err := readFrame(conn); err == nil {
			io.Copy(conn, iotest.OneByteReader(bytes.NewReader(reply)))
		}
	})
	if got := makeCall(socket, strings.NewReader("{}")); got != (outcome{stdout: "whole"}) {
		t.Errorf("outcome %+v", got)
	}
}

// A reply that is cut short, empty, too large, garbage, of wrong types or a failure without a reason is an error document
// for every verb, never a success.
func TestBrokenReply(t *testing.T) {
	huge := frame(`{"code":0,"stdout":"` + strings.Repeat("x", maxPayload+1-len(`{"code":0,"stdout":""}`)) + `"}`)
	tests := []struct {
		name, says string
		raw        []byte
	}{
		{"half a length", "cut short within its length", []byte{0, 0}},
		{"no payload", "cut short after 0 of 24 bytes", lengthOf(24)},
		{"half a payload", "cut short after 12 of 24 bytes", append(lengthOf(24), `{"code":0,"s`...)},
		{"shorter whole", "cut short after 23 of 24 bytes", append(lengthOf(24), `{"code":0,"stdout":"a"} `[:23]...)},
		{"empty payload", "the reply is empty", lengthOf(0)},
		{"too large", "announces 16777217 bytes", lengthOf(maxPayload + 1)},
		{"too large, sent", "announces 16777217 bytes", huge},
		{"no frame at all", "announces", []byte("HTTP/1.1 400 Bad Request\r\n\r\n")},
		{"no JSON", "no JSON", frame("oops")},
		{"no object", "no JSON of the agreed form", frame(`[0, ""]`)},
		{"null", "lacks", frame("null")},
		{"empty object", "lacks", frame("{}")},
		{"no code", "lacks", frame(`{"stdout":"x"}`)},
		{"no stdout", "lacks", frame(`{"code":0}`)},
		{"stdout null", "lacks", frame(`{"code":0,"stdout":null}`)},
		{"code a string", "no JSON of the agreed form", frame(`{"code":"0","stdout":"x"}`)},
		{"code a fraction", "no JSON of the agreed form", frame(`{"code":0.5,"stdout":"x"}`)},
		{"code a truth", "no JSON of the agreed form", frame(`{"code":false,"stdout":"x"}`)},
		{"stdout an object", "no JSON of the agreed form", frame(`{"code":0,"stdout":{"cniVersion":"1.1.0"}}`)},
		{"two values", "no JSON", frame(`{"code":0,"stdout":"x"}{}`)},
		{"not UTF-8", "no UTF-8", frame("{\"code\":0,\"stdout\":\"\xff\"}")},
		{"code 256", "code 256 is no exit code", frame(`{"code":256,"stdout":"x"}`)},
		{"code below 0", "code -1 is no exit code", frame(`{"code":-1,"stdout":"x"}`)},
		{"failure, no text", "code 3 and without an error document", frame(`{"code":3,"stdout":""}`)},
		{"failure, blank", "code 3 and without an error document", frame(`{"code":3,"stdout":" \n"}`)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			socket, _ := answering(t, test.raw)
			for _, verb := range allVerbs {
				code := 11
				if verb == "STATUS" {
					code = 50
				}
				got := makeCall(socket, strings.NewReader("{}"), "CNI_COMMAND="+verb)
				wantError(t, got, code, socket, test.says)
			}
		})
	}
}

// A reply of exactly 16 MiB is still understood.
func TestLargestReply(t *testing.T) {
	stdout := strings.Repeat("x", maxPayload-len(`{"code":0,"stdout":""}`))
	socket, _ := answering(t, frame(`{"code":0,"stdout":"`+stdout+`"}`))
	if got := makeCall(socket, strings.NewReader("{}")); got.code != 0 || got.stdout != stdout {
		t.Errorf("exit code %d and %d bytes, want 0 and %d", got.code, len(got.stdout), len(stdout))
	}
}

// When nobody answers, each verb says so, names the socket and the cause, and VERSION is answered even so.
func TestNobodyAnswers(t *testing.T) {
	folder := t.TempDir()
	stale := filepath.Join(folder, "stale")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	listener.Close()
	plain := filepath.Join(folder, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, socket, says string }{
		{"no such file", filepath.Join(folder, "none"), "no such file or directory"},
		{"no such folder", filepath.Join(folder, "none/none"), "no such file or directory"},
		{"the daemon is dead", stale, "connection refused"},
		{"not a socket", plain, "connection refused"},
		{"a folder", folder, "connection refused"},
		{"closes unread", listen(t, func(net.Conn) {}), "it closed the connection"},
		{"closes unanswered", listen(t, func(conn net.Conn) { readFrame(conn) }), "it closed the connection"},
	}
	for _, test := range tests {
		for _, verb := range allVerbs {
			t.Run(test.name+" "+verb, func(t *testing.T) {
				got := makeCall(test.socket, strings.NewReader("{}"), "CNI_COMMAND="+verb)
				wantNoAnswer(t, got, verb, test.socket, test.says)
			})
		}
	}
}

// A path that no socket can have is refused as a wrong configuration, and the longest one that a socket can have works.
func TestSocketPath(t *testing.T) {
	// Names of folders fill a path up to the length that is asked for.
	pathOf := func(t *testing.T, length int) string {
		folder := t.TempDir()
		path := folder + "/" + strings.Repeat("s", length-len(folder)-1)
		if len(path) != length {
			t.Fatalf("the path has %d bytes, want %d", len(path), length)
		}
		return path
	}
	t.Run("107", func(t *testing.T) {
		path := pathOf(t, 107)
		if err := os.Rename(listen(t, func(conn net.Conn) {
			readFrame(conn)
			conn.Write(goodReply(t, 0, "here"))
		}), path); err != nil {
			t.Fatal(err)
		}
		if got := makeCall("", strings.NewReader(`{"daemonSocket":"`+path+`"}`)); got != (outcome{stdout: "here"}) {
			t.Errorf("outcome %+v", got)
		}
	})
	for _, verb := range allVerbs[:5] {
		t.Run("108 "+verb, func(t *testing.T) {
			conf := `{"daemonSocket":"` + pathOf(t, 108) + `"}`
			got := makeCall("", strings.NewReader(conf), "CNI_COMMAND="+verb)
			wantError(t, got, 7, "has 108 bytes", "107 at the most")
		})
	}
	t.Run("NUL", func(t *testing.T) {
		got := makeCall("", strings.NewReader(`{"daemonSocket":"/run/a\u0000b"}`), "CNI_COMMAND=ADD")
		wantError(t, got, 7, "NUL")
	})
	t.Run("VERSION", func(t *testing.T) {
		conf := `{"daemonSocket":"` + pathOf(t, 108) + `"}`
		wantVersions(t, makeCall("", strings.NewReader(conf), "CNI_COMMAND=VERSION"), "1.1.0")
	})
}

// The deadline covers connecting, writing and reading together: whichever of them stalls, the call ends when it passes.
func TestDeadline(t *testing.T) {
	large := strings.Repeat(" ", 8<<20) // More than any socket's buffer holds.
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	reply := goodReply(t, 0, "too late")
	sending := func(raw []byte) func(net.Conn) {
		return func(conn net.Conn) {
			readFrame(conn)
			conn.Write(raw)
			<-over
		}
	}
	tests := []struct {
		name, stdin string
		socket      string
		answered    bool
	}{
		{"connecting", "", fullBacklog(t).path, false},
		{"writing", large, listen(t, func(net.Conn) { <-over }), false},
		{"reading", "", listen(t, sending(nil)), false},
		{"within the length", "", listen(t, sending(reply[:2])), true},
		{"within the payload", "", listen(t, sending(reply[:9])), true},
	}
	for _, test := range tests {
		for _, verb := range []string{"ADD", "STATUS", "VERSION"} {
			t.Run(test.name+" "+verb, func(t *testing.T) {
				start := time.Now()
				conf := fmt.Sprintf(`{"daemonSocket":%q,"daemonTimeout":0.1}`, test.socket) + test.stdin
				got := makeCall("", strings.NewReader(conf), "CNI_COMMAND="+verb)
				if took := time.Since(start); took < 100*time.Millisecond || took > 5*time.Second {
					t.Errorf("took %v, want about 100 ms", took)
				}
				if test.answered && verb == "VERSION" {
					wantError(t, got, 11, "cut short", "no answer within 0.1 s")
				} else {
					wantNoAnswer(t, got, verb, test.socket, "no answer within 0.1 s")
				}
			})
		}
	}
}

// While the daemon's backlog is full a call waits for its turn, instead of failing at once.
func TestFullBacklog(t *testing.T) {
	server := fullBacklog(t)
	done := make(chan outcome)
	go func() { done <- makeCall(server.path, strings.NewReader("{}"), "CNI_COMMAND=ADD") }()
	select {
	case got := <-done:
		t.Fatalf("the call did not wait: %+v", got)
	case <-time.After(50 * time.Millisecond): // That something does not happen has no event.
	}
	server.accept(t).Close() // The connection that fills the backlog.
	conn := server.accept(t)
	defer conn.Close()
	if _, err := readFrame(conn); err != nil {
		t.Fatal(err)
	}
	conn.Write(goodReply(t, 0, "served"))
	if got := <-done; got != (outcome{stdout: "served"}) {
		t.Errorf("outcome %+v", got)
	}
}

// backlog is a listening socket that nobody accepts from.
type backlog struct {
	path string
	fd   int
}

// fullBacklog makes a listener whose backlog has room for one connection, and takes that room.
func fullBacklog(t *testing.T) backlog {
	t.Helper()
	path := filepath.Join(t.TempDir(), "full")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	// A call that never connects fails the test that accepts it, instead of hanging it.
	patience := syscall.NsecToTimeval(int64(20 * time.Second))
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &patience); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return backlog{path: path, fd: fd}
}

func (b backlog) accept(t *testing.T) *os.File {
	t.Helper()
	fd, _, err := syscall.Accept(b.fd)
	for err == syscall.EINTR {
		fd, _, err = syscall.Accept(b.fd)
	}
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "accepted")
}

// Without daemonTimeout a call ends after 200 s for ADD, 2 s for STATUS and 60 s for all others.
func TestDefaultTimeout(t *testing.T) {
	tests := map[string]time.Duration{"ADD": 200, "STATUS": 2, "CHECK": 60, "DEL": 60, "GC": 60, "VERSION": 60, "": 60}
	for verb, want := range tests {
		if got := defaultTimeout(verb); got != want*time.Second {
			t.Errorf("%q: %v, want %v", verb, got, want*time.Second)
		}
	}
}

// STATUS, which names no deadline, gives up after 2 s.
func TestStatusGivesUp(t *testing.T) {
	start := time.Now()
	got := makeCall(fullBacklog(t).path, strings.NewReader("{}"), "CNI_COMMAND=STATUS")
	if took := time.Since(start); took < 2*time.Second || took > 4*time.Second {
		t.Errorf("took %v, want about 2 s", took)
	}
	wantError(t, got, 50, "no answer within 2 s")
}

// The keys of the shim are read exactly and one by one: a wrong one counts as absent and hides no other.
func TestParse(t *testing.T) {
	tests := []struct {
		stdin string
		want  configuration
	}{
		{`{"cniVersion":"1.0.0","daemonSocket":"/s","daemonTimeout":1.5}`, configuration{"1.0.0", "/s", 1500 * time.Millisecond}},
		{``, configuration{}},
		{`{`, configuration{}},
		{`null`, configuration{}},
		{`[{"daemonSocket":"/s"}]`, configuration{}},
		{`{"daemonSocket":"/s"} trailing`, configuration{}},
		{`{"cniVersion":1,"daemonSocket":"/s","daemonTimeout":"9"}`, configuration{"", "/s", 0}},
		{`{"cniVersion":"1.0.0","daemonSocket":["/s"],"daemonTimeout":9}`, configuration{"1.0.0", "", 9 * time.Second}},
		{`{"cniVersion":null,"daemonSocket":null,"daemonTimeout":null}`, configuration{}},
		{`{"CNIVersion":"1.0.0","daemonsocket":"/s","DaemonTimeout":9}`, configuration{}},
		{`{"daemonTimeout":0}`, configuration{}},
		{`{"daemonTimeout":-5}`, configuration{}},
		{`{"daemonTimeout":true}`, configuration{}},
		{`{"daemonTimeout":1e400}`, configuration{}},
		{`{"daemonTimeout":1e300}`, configuration{timeout: longestTimeout}},
		{`{"daemonTimeout":2147483648}`, configuration{timeout: longestTimeout}},
	}
	for _, test := range tests {
		if got := parse([]byte(test.stdin)); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.stdin, got, test.want)
		}
	}
}

// A configuration whose daemonTimeout or daemonSocket is unusable still reaches the daemon, whose refusal is printed.
func TestTheDaemonRefuses(t *testing.T) {
	refusal := `{"cniVersion":"1.1.0","code":7,"msg":"daemonTimeout: …"}`
	for _, wrong := range []string{
		`"daemonTimeout":"soon"`, `"daemonTimeout":0`, `"daemonTimeout":-1`, `"daemonTimeout":[]`, `"daemonTimeout":1e400`,
		`"daemonTimeout":1e300`, `"daemonSocket":7`, `"daemonSocket":""`,
	} {
		t.Run(wrong, func(t *testing.T) {
			socket, requests := answering(t, goodReply(t, 1, refusal))
			got := makeCall(socket, strings.NewReader("{"+wrong+"}"), "CNI_COMMAND=ADD")
			if want := (outcome{code: 1, stdout: refusal}); got != want {
				t.Errorf("outcome %+v, want %+v", got, want)
			}
			if !bytes.Contains(<-requests, []byte(`"stdin"`)) {
				t.Error("the daemon got no configuration")
			}
		})
	}
}

// The shim's documents carry the configuration's cniVersion; without one, and in the answer to VERSION also when it is
// unknown, the newest.
func TestDocumentVersion(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "none")
	tests := []struct{ stdin, ofError, ofVersion string }{
		{`{"cniVersion":"0.3.1"}`, "0.3.1", "0.3.1"},
		{`{"cniVersion":"1.1.0"}`, "1.1.0", "1.1.0"},
		{`{"cniVersion":"9.9.9"}`, "9.9.9", "1.1.0"},
		{`{"cniVersion":""}`, "1.1.0", "1.1.0"},
		{`{"cniVersion":1}`, "1.1.0", "1.1.0"},
		{`{}`, "1.1.0", "1.1.0"},
		{`{oops`, "1.1.0", "1.1.0"},
		{``, "1.1.0", "1.1.0"},
	}
	for _, test := range tests {
		t.Run(test.stdin, func(t *testing.T) {
			document := wantError(t, makeCall(nowhere, strings.NewReader(test.stdin), "CNI_COMMAND=ADD"), 11)
			if document["cniVersion"] != test.ofError {
				t.Errorf("cniVersion %v, want %s", document["cniVersion"], test.ofError)
			}
			wantVersions(t, makeCall(nowhere, strings.NewReader(test.stdin), "CNI_COMMAND=VERSION"), test.ofVersion)
		})
	}
}

// A call that does not fit into one frame is refused without bothering the daemon, and the largest that fits is made.
func TestLargeStdin(t *testing.T) {
	overhead := len(`{"shim":"4.5.6","env":{"CNI_COMMAND":"ADD"},"stdin":""}`)
	largest := (maxPayload - overhead) / 4 * 3 // Base64 makes four bytes of three.
	tests := []struct {
		size int
		fits bool
	}{{largest, true}, {largest + 1, false}, {maxPayload, false}, {maxPayload + 1, false}, {2 * maxPayload, false}}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.size), func(t *testing.T) {
			socket, requests := answering(t, goodReply(t, 0, "taken"))
			stdin := io.LimitReader(spaces{}, int64(test.size))
			got := makeCall(socket, stdin, "CNI_COMMAND=ADD")
			if test.fits {
				var request asked
				if err := json.Unmarshal(<-requests, &request); err != nil || len(request.Stdin) != test.size {
					t.Errorf("the daemon got %d bytes, want %d: %v", len(request.Stdin), test.size, err)
				}
				if got != (outcome{stdout: "taken"}) {
					t.Errorf("outcome %+v", got)
				}
				return
			}
			wantError(t, got, 7, "too large")
			if len(requests) != 0 {
				t.Error("the daemon was asked")
			}
		})
	}
}

// spaces is an endless stdin.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// A stdin that cannot be read is an I/O error, and for VERSION, which needs none, no obstacle.
func TestUnreadableStdin(t *testing.T) {
	broken := iotest.ErrReader(errors.New("input/output error"))
	for _, verb := range allVerbs[:5] {
		wantError(t, makeCall("", broken, "CNI_COMMAND="+verb), 5, "stdin", "input/output error")
	}
	wantVersions(t, makeCall("", broken, "CNI_COMMAND=VERSION"), "1.1.0")
}

// An answer that cannot be written on stdout is a failure, told on stderr, whatever the answer was.
func TestUnwritableStdout(t *testing.T) {
	tests := []struct {
		reply []byte
		want  int
	}{
		{goodReply(t, 0, "an answer"), 1},
		{goodReply(t, 9, "a refusal"), 9},
		{frame("garbage"), 1},
	}
	for _, test := range tests {
		socket, _ := answering(t, test.reply)
		for _, room := range []int64{0, 3} {
			var stderr bytes.Buffer
			code := call{
				environ:   func() []string { return nil },
				stdin:     strings.NewReader("{}"),
				stdout:    &small{room: room},
				stderr:    &stderr,
				socket:    socket,
				version:   "4.5.6",
				supported: knownVersions,
			}.run()
			if code != test.want || !strings.Contains(stderr.String(), "no space left on device") {
				t.Errorf("exit code %d, want %d; stderr %q", code, test.want, stderr.String())
			}
		}
	}
}

// small is a stdout on a disk that fills up.
type small struct{ room int64 }

func (s *small) Write(p []byte) (int, error) {
	if int64(len(p)) <= s.room {
		s.room -= int64(len(p))
		return len(p), nil
	}
	n := int(s.room)
	s.room = 0
	return n, syscall.ENOSPC
}
