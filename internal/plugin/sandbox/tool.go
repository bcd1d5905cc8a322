package sandbox

// Tool says what a program of the command line may use: a CLI plugin, which runs
// at its user's terminal and as its user. It reads the system's libraries, what is
// listed here, and the files that it was started with; it writes to those alone.
type Tool struct {
	Plugin string
	// Tree is the folder of a package of many files, Interpreter the real path of
	// what runs it; empty: it is one executable.
	Tree, Interpreter string
	Files             []string // declared, absolute: files and folders to read
	Private           []string // files and folders that it is given in no case
	Ports             []uint16 // to which it may connect by TCP
}
