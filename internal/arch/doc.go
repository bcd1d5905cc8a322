// Package arch proves that the house is built as its plan says: it holds tests
// alone, and the tables that they read.
//
//   - ladder.go: every package has a room, and imports go down only
//   - library.go: every third-party library has one door
//   - lists.go: who may reveal secrets, read the environment, and so on
//   - testdata/dependencies.txt: what the product's binary is made of
//
// A test that fails here names the rule and what to do. Changing a table is
// changing the plan: say why in the table, and for more than an edge on a page
// in docs/decisions.
package arch
