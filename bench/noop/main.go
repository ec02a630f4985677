// Command noop does nothing: the least that a CNI plugin can cost, a process that starts and ends.
package main

func main() {}
