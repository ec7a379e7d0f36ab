# The probe guest: what a 64-bit kernel asks of a CPU in its first second, in 4 KiB.
#
# A boot disk whose first sector loads the other seven, says "real" on the serial port, enters long mode, says "long",
# reads and writes the MSRs that no x86-64 kernel does without, says "msr", takes a local APIC timer interrupt, says
# "timer", goes to user mode and back by SYSCALL/SYSRET, says "user", and then runs two loops whose durations the host
# measures between the lines: "cpu" (arithmetic and memory) and "kernel" (system calls, exceptions, address space
# switches, port I/O: what is slow where virtualization is nested or emulated). Then it powers off by ACPI (q35's PM1a
# control register as SeaBIOS places it, 0x604), so that QEMU ends by itself. An exception that isn't expected says
# "trap" and powers off. Every line starts with "iaas-probe: ".
#
# Assembled into probe_guest.bin, which is checked in (a build needs no assembler); a test compares the two where
# binutils are installed. To rebuild:
#   as --64 probe_guest.S -o probe.o && ld -m elf_x86_64 -Ttext 0x7c00 -e _start --oformat binary probe.o -o probe_guest.bin

        .set SERIAL, 0x3f8
        .set PML4, 0x10000              # PDPT 0x11000, four page directories 0x12000..0x16000: 4 GiB, 2 MiB pages
        .set IDT, 0x20000
        .set SCRATCH, 0x30000           # 64 KiB that the cpu loop writes to
        .set LAPIC, 0xfee00000
        .set CPU_ROUNDS, 12000000
        .set KERNEL_ROUNDS, 8000

        .code16
        .globl _start
_start: cli
        cld
        xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movw $0x7c00, %sp
        movb $0x42, %ah                 # extended read: the seven sectors behind this one; %dl is the boot drive
        movw $packet, %si
        int $0x13
        jc dead16
        movw $msg_real, %si
1:      lodsb
        testb %al, %al
        jz 3f
        movb %al, %bl
2:      movw $SERIAL + 5, %dx
        inb %dx, %al
        testb $0x20, %al
        jz 2b
        movw $SERIAL, %dx
        movb %bl, %al
        outb %al, %dx
        jmp 1b
3:      movb $0xff, %al                 # both PICs masked: only the local APIC interrupts
        outb %al, $0x21
        outb %al, $0xa1
        inb $0x92, %al                  # A20
        orb $2, %al
        outb %al, $0x92
        lgdt gdt_pointer
        movl %cr0, %eax
        orl $1, %eax
        movl %eax, %cr0
        ljmpl $0x30, $protected
dead16: hlt
        jmp dead16

packet: .byte 16, 0
        .word 7, 0x7e00, 0
        .quad 1

        .org 510
        .word 0xaa55

        .code32
protected:
        movw $0x10, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movl $0x80000001, %eax          # long mode must be offered before it is entered
        cpuid
        btl $29, %edx
        jnc dead32
        movl $PML4, %edi                # zero the six tables, then fill them; user bit set everywhere
        xorl %eax, %eax
        movl $0x6000 / 4, %ecx
        rep stosl
        movl $PML4 + 0x1007, PML4
        movl $PML4 + 0x2007, PML4 + 0x1000
        movl $PML4 + 0x3007, PML4 + 0x1008
        movl $PML4 + 0x4007, PML4 + 0x1010
        movl $PML4 + 0x5007, PML4 + 0x1018
        movl $PML4 + 0x2000, %edi
        movl $0x87, %eax
        movl $2048, %ecx
1:      movl %eax, (%edi)
        addl $8, %edi
        addl $0x200000, %eax
        loop 1b
        movl %cr4, %eax
        orl $0x620, %eax                # PAE, OSFXSR, OSXMMEXCPT
        movl %eax, %cr4
        movl $PML4, %eax
        movl %eax, %cr3
        movl $0xc0000080, %ecx          # EFER: long mode, SYSCALL
        rdmsr
        orl $0x101, %eax
        wrmsr
        movl %cr0, %eax
        andl $0xfffffffb, %eax          # no FPU emulation
        orl $0x80000002, %eax           # paging, monitor coprocessor
        movl %eax, %cr0
        ljmpl $0x08, $long_mode
dead32: hlt
        jmp dead32

        .code64
long_mode:
        movl $0x7c00, %esp
        movl $IDT, %edi                 # every vector to `trap`, then the two that are expected
        movl $256, %ecx
1:      movl $trap, %eax
        call gate
        loop 1b
        movl $IDT + 0x40 * 16, %edi
        movl $on_timer, %eax
        call gate
        movl $on_soft, %eax
        call gate
        lidt idt_pointer
        movl $msg_long, %esi
        call say

        movl $msr_read, %esi            # read what every kernel reads
1:      movl (%rsi), %ecx
        addl $4, %esi
        testl %ecx, %ecx
        jz 2f
        rdmsr
        jmp 1b
2:      movl $msr_write, %esi           # write what every kernel writes, and see that it stays
1:      movl (%rsi), %ecx
        testl %ecx, %ecx
        jz 2f
        movl 4(%rsi), %eax
        movl 8(%rsi), %edx
        addl $12, %esi
        wrmsr
        rdmsr
        cmpl -8(%rsi), %eax
        jne trap
        cmpl -4(%rsi), %edx
        jne trap
        jmp 1b
2:      xorl %eax, %eax
        cpuid
        rdtsc
        movl %eax, %ebx
        rdtsc
        cvtsi2sdl %ebx, %xmm0
        addpd %xmm0, %xmm0
        movl $msg_msr, %esi
        call say

        movl $LAPIC, %ebx               # one shot of the local APIC's timer
        movl $0x1ff, 0xf0(%rbx)
        movl $0x0b, 0x3e0(%rbx)
        movl $0x40, 0x320(%rbx)
        movl $500000, 0x380(%rbx)
1:      sti
        hlt
        cli
        cmpl $0, ticks
        je 1b
        movl $msg_timer, %esi
        call say

        call user_round
        movl $msg_user, %esi
        call say

        movl $CPU_ROUNDS, %ecx
        movl $SCRATCH, %edi
        movl $1, %eax
1:      imull $0x9e3779b1, %eax
        addl %ecx, %eax
        movl %eax, %edx
        shrl $18, %edx
        xorl (%rdi, %rdx, 4), %eax
        movl %eax, (%rdi, %rdx, 4)
        decl %ecx
        jnz 1b
        movl $msg_cpu, %esi
        call say

        movl $KERNEL_ROUNDS, %ebp
1:      call user_round
        int $0x41
        movq %cr3, %rax
        movq %rax, %cr3
        movl $0x400000, %edi            # sixteen large pages: the translations are gone
        movl $16, %ecx
2:      incl (%rdi)
        addl $0x200000, %edi
        loop 2b
        outb %al, $0x80
        decl %ebp
        jnz 1b
        movl $msg_kernel, %esi
        call say
        jmp power_off

trap:   movl $0x7c00, %esp
        movl $msg_trap, %esi
        call say
power_off:
        movw $0x604, %dx
        movw $0x2000, %ax
        outw %ax, %dx
1:      hlt
        jmp 1b

gate:   movw %ax, (%rdi)                # an interrupt gate to the handler in %eax; handlers lie below 64 KiB
        movw $0x08, 2(%rdi)
        movl $0x8e00, 4(%rdi)
        movq $0, 8(%rdi)
        addl $16, %edi
        ret

on_timer:
        movl $1, ticks
        movl $LAPIC, %ebx               # end of interrupt; %ebx held it already
        movl $0, 0xb0(%rbx)
        iretq
on_soft:
        iretq

user_round:                             # to ring 3 by SYSRET, back by SYSCALL
        movq %rsp, saved_rsp
        movl $in_user, %ecx
        movl $0x2, %r11d
        sysretq
in_user:
        syscall
back:   movq saved_rsp, %rsp
        ret

say:    movb (%rsi), %bl
        incl %esi
        testb %bl, %bl
        jz 2f
1:      movw $SERIAL + 5, %dx
        inb %dx, %al
        testb $0x20, %al
        jz 1b
        movw $SERIAL, %dx
        movb %bl, %al
        outb %al, %dx
        jmp say
2:      ret

msg_real:   .asciz "iaas-probe: real\n"
msg_long:   .asciz "iaas-probe: long\n"
msg_msr:    .asciz "iaas-probe: msr\n"
msg_timer:  .asciz "iaas-probe: timer\n"
msg_user:   .asciz "iaas-probe: user\n"
msg_cpu:    .asciz "iaas-probe: cpu\n"
msg_kernel: .asciz "iaas-probe: kernel\n"
msg_trap:   .asciz "iaas-probe: trap\n"

        .balign 8
saved_rsp:  .quad 0
ticks:      .long 0
            # TSC, APIC base, MTRR capabilities, PAT, default MTRR type, EFER
msr_read:   .long 0x10, 0x1b, 0xfe, 0x277, 0x2ff, 0xc0000080, 0
            # number, low, high: STAR, LSTAR, SFMASK, GS base, kernel GS base
msr_write:  .long 0xc0000081, 0, 0x001b0008
            .long 0xc0000082, back, 0
            .long 0xc0000084, 0x700, 0
            .long 0xc0000101, 0x12345000, 0xffff8880
            .long 0xc0000102, 0x6789a000, 0
            .long 0
        .balign 8
gdt:        .quad 0
            .quad 0x00209b0000000000    # 0x08 kernel code, 64 bits
            .quad 0x00cf93000000ffff    # 0x10 kernel data
            .quad 0x00cffb000000ffff    # 0x18 user code, 32 bits (SYSRET counts from here)
            .quad 0x00cff3000000ffff    # 0x20 user data
            .quad 0x0020fb0000000000    # 0x28 user code, 64 bits
            .quad 0x00cf9b000000ffff    # 0x30 code, 32 bits: on the way to long mode
gdt_pointer:
            .word . - gdt - 1
            .long gdt
idt_pointer:
            .word 256 * 16 - 1
            .quad IDT
        .org 4096
