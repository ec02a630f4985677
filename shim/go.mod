module podvif.io/shim

go 1.19
