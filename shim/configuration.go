package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// longestTimeout caps daemonTimeout where a kernel's 32-bit seconds end (68 years).
const longestTimeout = (1<<31 - 1) * time.Second

// configuration is what this program reads of the network configuration. A zero value means absent or unusable.
type configuration struct {
	cniVersion string
	socket     string
	timeout    time.Duration
}

// readConfiguration reads stdin to its end, but no further than to the byte that makes it too large for encode.
func readConfiguration(stdin io.Reader) ([]byte, *failure) {
	raw, err := io.ReadAll(io.LimitReader(stdin, maxPayload+1))
	if err != nil {
		return nil, &failure{
			code:    codeIO,
			msg:     fmt.Sprintf("the network configuration could not be read from stdin: %v", err),
			details: "The container runtime has to give the configuration on stdin and close it.",
		}
	}
	return raw, nil
}

// parse picks this program's keys out of the network configuration. It refuses nothing: what it cannot use it leaves at
// zero, and the daemon, which gets the same bytes, says what is wrong with them. Keys are compared exactly, as the daemon
// does, and one by one, so that a wrong one does not hide the others.
func parse(stdin []byte) configuration {
	var keys map[string]json.RawMessage
	if json.Unmarshal(stdin, &keys) != nil {
		return configuration{}
	}
	return configuration{
		cniVersion: text(keys["cniVersion"]),
		socket:     text(keys["daemonSocket"]),
		timeout:    seconds(keys["daemonTimeout"]),
	}
}

// text is the JSON string, or "" if it is none.
func text(raw json.RawMessage) string {
	var value string
	if json.Unmarshal(raw, &value) != nil {
		return ""
	}
	return value
}

// seconds is the JSON number as a span of time, or 0 if it is no number above 0.
func seconds(raw json.RawMessage) time.Duration {
	var value float64
	if json.Unmarshal(raw, &value) != nil || value <= 0 {
		return 0
	}
	if value >= longestTimeout.Seconds() {
		return longestTimeout
	}
	return time.Duration(value * float64(time.Second))
}
