// Package crash proves what the store promises about crashes, on the real
// store in processes of its own: nothing that was acknowledged is lost, nothing
// is there by halves, and the ledger verifies after every restart.
//
// It has tests only. A process that is killed loses nothing that it handed to
// the kernel, so that killing alone cannot show lost durability; the power cut
// (power_test.go) therefore drops what was not synced, and the same test with
// synchronous=OFF must notice the loss.
package crash
