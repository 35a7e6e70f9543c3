# SPDX-License-Identifier: GPL-2.0-or-later
#
# The boot sector that shows whether guests run: it goes from real mode through
# protected mode with paging into long mode, as every kernel does, computes with
# 64 bits and SSE, and reports by writing to port 0xf4, where QEMU's
# isa-debug-exit ends the machine with status 2*value+1. What looks like KVM but
# cannot do all of this must not be used.
#
#	as --64 -o probe.o probe.S && objcopy -O binary -j .text probe.o probe.bin

	.equ	pml4, 0x1000		# page tables: one entry each, the last a 2 MiB page
	.equ	pdpt, 0x2000
	.equ	pd, 0x3000
	.equ	base, 0x7c00		# where the BIOS loads us

	.text
	.code16
start:	ljmp	$0, $(base + 1f - start)
1:	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	$base, %sp

	movw	$pml4, %di
	movw	$(3 * 4096 / 2), %cx
	cld
	rep stosw
	movl	$(pdpt | 3), pml4
	movl	$(pd | 3), pdpt
	movl	$0x83, pd

	lgdtl	base + gdtr - start
	movl	$((1 << 5) | (1 << 9)), %eax	# PAE, OSFXSR
	movl	%eax, %cr4
	movl	$pml4, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx	# EFER
	rdmsr
	orl	$(1 << 8), %eax		# LME
	wrmsr
	movl	%cr0, %eax
	andl	$~(1 << 2), %eax	# no emulation of the FPU
	orl	$0x80000003, %eax	# PG, MP, PE
	movl	%eax, %cr0
	ljmpl	$8, $(base + long - start)

	.code64
long:	movabsq	$0x1500000000, %rax
	movq	%rax, %xmm0
	paddq	%xmm0, %xmm0
	movq	%xmm0, %rax
	shrq	$32, %rax		# 0x2a
	outb	%al, $0xf4
2:	hlt
	jmp	2b

	.balign	8
gdt:	.quad	0
	.quad	0x00209a0000000000	# code, 64 bit
gdtr:	.word	. - gdt - 1
	.long	base + gdt - start

	.org	510
	.word	0xaa55
