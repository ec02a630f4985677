//go:build tools

// Programs that are built beside this one, in the same module: they share most of their code with it.
package main

import _ "gopkg.in/k8snetworkplumbingwg/multus-cni.v4/cmd/multus"
