package main

import "encoding/json"

// Error codes of the CNI specification.
const (
	codeIO            = 5
	codeInvalidConfig = 7
	codeTryAgain      = 11
	codeNotAvailable  = 50
)

// failure is why there is no answer of the daemon to print.
//
// Its texts must never hold the words "not found": containerd takes an error of DEL that does for a success, and would
// leave the port behind.
type failure struct {
	code     int    // of the CNI specification; 0: that of the verb, see document
	answered bool   // the daemon did answer, but nothing that can be used
	msg      string // what happened, and to which socket
	details  string // what to do about it
}

// errorDocument is the error of the CNI specification.
type errorDocument struct {
	CNIVersion string `json:"cniVersion"`
	Code       int    `json:"code"`
	Msg        string `json:"msg"`
	Details    string `json:"details"`
}

// versionDocument is the answer to VERSION.
type versionDocument struct {
	CNIVersion        string   `json:"cniVersion"`
	SupportedVersions []string `json:"supportedVersions"`
}

// document is what this program says for itself, and the exit code to say it with. A daemon that is not there is a passing
// state: "try again later", and for STATUS "not available". VERSION asks for a fact that the build has put into this
// program, so nobody has to be there; an answer of the daemon that is broken is told even so.
func (c call) document(verb, cniVersion string, failed *failure) (string, int) {
	newest := c.supported[len(c.supported)-1]
	if verb == verbVersion && !failed.answered {
		if !contains(c.supported, cniVersion) {
			cniVersion = newest
		}
		return line(versionDocument{CNIVersion: cniVersion, SupportedVersions: c.supported}), 0
	}
	if cniVersion == "" {
		cniVersion = newest
	}
	code := failed.code
	if code == 0 {
		code = codeTryAgain
		if verb == verbStatus {
			code = codeNotAvailable
		}
	}
	return line(errorDocument{CNIVersion: cniVersion, Code: code, Msg: failed.msg, Details: failed.details}), 1
}

// line renders a document as one line of JSON.
func line(document any) string {
	text, err := json.Marshal(document)
	if err != nil {
		panic(err) // Strings and integers always encode.
	}
	return string(text) + "\n"
}

func contains(list []string, wanted string) bool {
	for _, entry := range list {
		if entry == wanted {
			return true
		}
	}
	return false
}
