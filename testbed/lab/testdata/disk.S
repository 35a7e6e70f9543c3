# SPDX-License-Identifier: GPL-2.0-or-later
#
# A boot sector that writes its second sector with the BIOS and says on the screen
# how that went: "WRITE OK" or "WRITE FAILED".
#
#	as --64 -o disk.o disk.S && objcopy -O binary -j .text disk.o disk.bin

	.equ	base, 0x7c00

	.text
	.code16
start:	ljmp	$0, $(base + 1f - start)
1:	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	$base, %sp
	sti
	movw	$(base + packet - start), %si
	movw	$0x4300, %ax		# extended write; %dl is the drive we came from
	int	$0x13
	movw	$(base + ok - start), %si
	jnc	print
	movw	$(base + failed - start), %si
print:	lodsb
	testb	%al, %al
	jz	stop
	movb	$0x0e, %ah
	movw	$7, %bx
	int	$0x10
	jmp	print
stop:	hlt
	jmp	stop

ok:	.asciz	"WRITE OK\r\n"
failed:	.asciz	"WRITE FAILED\r\n"

	.balign	4
packet:	.byte	16, 0
	.word	1			# sectors
	.word	base, 0			# from where in memory
	.quad	1			# to which sector

	.org	510
	.word	0xaa55
