package sandbox

// machine is the architecture's number in an ELF header.
const machine = elfARM64
