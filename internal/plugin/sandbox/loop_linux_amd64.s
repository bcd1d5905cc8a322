#include "textflag.h"

// The runner; see loop_linux.go. It is never called here: its bytes are copied
// into the image of a launcher.
//
//	R12  the step: number of the system call, six arguments, how far to go on if
//	     the result is zero
TEXT ·runner(SB), NOSPLIT|NOFRAME, $0
	MOVQ $0x600000, R12
next:
	MOVQ 0(R12), AX
	MOVQ 8(R12), DI
	MOVQ 16(R12), SI
	MOVQ 24(R12), DX
	MOVQ 32(R12), R10
	MOVQ 40(R12), R8
	MOVQ 48(R12), R9
	SYSCALL
	CMPQ AX, $-4095
	JCC  failed
	TESTQ AX, AX
	JNE  on
	ADDQ 56(R12), R12
on:
	ADDQ $64, R12
	JMP  next
failed:
	// write(3, {step, -errno}, 16), exit_group(1)
	MOVQ R12, 0(R12)
	MOVQ AX, 8(R12)
	MOVQ $1, AX
	MOVQ $3, DI
	MOVQ R12, SI
	MOVQ $16, DX
	SYSCALL
	MOVQ $231, AX
	MOVQ $1, DI
	SYSCALL
	BYTE $0xF4; BYTE $0xF4; BYTE $0xF4; BYTE $0xF4 // HLT: the end, which codeOf looks for
	BYTE $0xF4; BYTE $0xF4; BYTE $0xF4; BYTE $0xF4

// func runnerText() unsafe.Pointer
TEXT ·runnerText(SB), NOSPLIT, $0-8
	LEAQ ·runner(SB), AX
	MOVQ AX, ret+0(FP)
	RET
