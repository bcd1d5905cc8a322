#include "textflag.h"

// The runner; see loop_linux.go. It is never called here: its bytes are copied
// into the image of a launcher.
//
//	R19  the step: number of the system call, six arguments, how far to go on if
//	     the result is zero
TEXT ·runner(SB), NOSPLIT|NOFRAME, $0
	MOVD $0x600000, R19
next:
	MOVD 0(R19), R8
	MOVD 8(R19), R0
	MOVD 16(R19), R1
	MOVD 24(R19), R2
	MOVD 32(R19), R3
	MOVD 40(R19), R4
	MOVD 48(R19), R5
	SVC  $0
	CMN  $4095, R0
	BCS  failed
	CBNZ R0, on
	MOVD 56(R19), R1
	ADD  R1, R19
on:
	ADD  $64, R19
	B    next
failed:
	// write(3, {step, -errno}, 16), exit_group(1)
	MOVD R19, 0(R19)
	MOVD R0, 8(R19)
	MOVD $64, R8
	MOVD $3, R0
	MOVD R19, R1
	MOVD $16, R2
	SVC  $0
	MOVD $94, R8
	MOVD $1, R0
	SVC  $0
	WORD $0xD4400000 // HLT: the end, which codeOf looks for
	WORD $0xD4400000

// func runnerText() unsafe.Pointer
TEXT ·runnerText(SB), NOSPLIT, $0-8
	MOVD $·runner(SB), R0
	MOVD R0, ret+0(FP)
	RET
