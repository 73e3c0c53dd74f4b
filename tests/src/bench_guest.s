# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The guest that is measured; see bench_guest.rs. Position-independent: it runs elsewhere than it is linked.

    .section .rodata.kennel_bench_guest, "a"
    .globl kennel_bench_guest_start
    .globl kennel_bench_guest_end
    .globl kennel_bench_rom_start
    .globl kennel_bench_rom_end

    .set G_COM1, 0x3f8
    .set G_WATCHDOG, 0x80002000
    .set G_BAR, 0xd0000000
    .set G_REAL_MODE_BAR, 0xb0000
    .set G_RELOAD, 0xc
    .set G_STACK, 0x300000
    .set G_IDT, 0x310000
    .set G_PINGS, 2000
    # Each stage is 0.6 s: QEMU tells of a bite once a second at most.
    .set G_TICKS, 610
    # Each stage is 2 s, and so is the time between two pings: as systemd pings, at half the timeout.
    .set G_STEADY_TICKS, 2035
    .set G_LAPIC, 0xfee00000
    .set G_VECTOR, 0x40
    .set G_INPUT_VECTOR, 0x41
    .set G_IOAPIC, 0xfec00000
    # Of the LAPIC's timer, which counts every 128 ns under KVM.
    .set G_PERIOD, 15625000
    # Before it hangs.
    .set G_HANGS_AFTER, 3

.macro G_SAY letter
    mov dx, G_COM1
    mov al, \letter
    out dx, al
.endm
.macro G_CONFIG register, size, value
    mov dx, 0xcf8
    mov eax, G_WATCHDOG | \register
    out dx, eax
    mov dx, 0xcfc
    mov eax, \value
    out dx, \size
.endm

# 32-bit protected mode, memory mapped to itself, interrupts off, hvm_start_info in EBX.
    .code32
kennel_bench_guest_start:
    G_SAY 'S'
    cli
    cld
    mov esp, G_STACK
    mov esi, [ebx + 24]
    xor ebx, ebx
    test esi, esi
    jz 2f
    # The last character of the command line.
1:  lodsb
    test al, al
    jz 2f
    mov bl, al
    jmp 1b
2:  mov edi, G_BAR
    G_CONFIG 0x10, eax, G_BAR
    G_CONFIG 0x04, ax, 2
    cmp bl, 'b'
    je g_bite
    cmp bl, 'n'
    je g_nmi
    cmp bl, 'c'
    je g_compute
    cmp bl, 'a'
    je g_ask
    mov ebp, -1
    cmp bl, 'p'
    je g_steady
    mov ebp, G_HANGS_AFTER
    cmp bl, 'h'
    je g_steady
    sub bl, '0'
    cmp bl, 9
    ja g_stop

    # So many thousands of pings, between two marks.
    imul ecx, ebx, G_PINGS
    G_CONFIG 0x68, al, 2
    G_SAY 'B'
    test ecx, ecx
    jz 4f
3:  mov word ptr [edi + G_RELOAD], 0x80
    mov word ptr [edi + G_RELOAD], 0x86
    mov word ptr [edi + G_RELOAD], 0x100
    dec ecx
    jnz 3b
4:  G_SAY 'E'
g_stop:
    hlt
    jmp g_stop

g_bite:
    mov ecx, G_TICKS
    call g_arm
    jmp g_stop

g_compute:
    mov ecx, G_TICKS
    call g_arm
5:  jmp 5b

# Gate 2 leads to a handler that says so; the call pushes where that is.
g_nmi:
    mov edx, 2
    call g_set_gate
g_on_nmi:
    G_SAY 'N'
    # Not every software KVM knows IRET in protected mode: one NMI a boot.
    jmp g_stop

# Sleeps between pings: the timer's interrupt leads to the next one, EBP times.
g_steady:
    mov edx, G_VECTOR
    call g_set_gate
g_on_timer:
    mov esp, G_STACK
    mov esi, G_LAPIC
    mov dword ptr [esi + 0xb0], 0
    mov word ptr [edi + G_RELOAD], 0x80
    mov word ptr [edi + G_RELOAD], 0x86
    mov word ptr [edi + G_RELOAD], 0x100
    G_SAY 'p'
    dec ebp
    jz g_stop
g_sleep:
    sti
    hlt
    jmp g_sleep

# Sleeps until the console says how many ticks a stage is to have, in decimal and a line of its own; then arms.
g_ask:
    mov edx, G_INPUT_VECTOR
    call g_set_gate
g_on_input:
    mov esp, G_STACK
    # Before the FIFO is emptied: what comes later interrupts again.
    mov esi, G_LAPIC
    mov dword ptr [esi + 0xb0], 0
g_read_input:
    mov dx, G_COM1 + 5
    in al, dx
    test al, 1
    jz g_sleep
    mov dx, G_COM1
    in al, dx
    sub al, '0'
    jb g_line_ends
    movzx eax, al
    imul ecx, ecx, 10
    add ecx, eax
    jmp g_read_input
g_line_ends:
    # No interrupt at the end of stage 1.
    G_CONFIG 0x60, ax, 3
    call g_arm
    xor ecx, ecx
    jmp g_read_input
# COM1 interrupts by input 4 of the IOAPIC alone.
g_listen:
    mov al, 0xff
    out 0x21, al
    out 0xa1, al
    mov esi, G_LAPIC
    mov dword ptr [esi + 0xf0], 0x1ff
    mov esi, G_IOAPIC
    mov dword ptr [esi], 0x10 + 2 * 4 + 1
    mov dword ptr [esi + 0x10], 0
    mov dword ptr [esi], 0x10 + 2 * 4
    mov dword ptr [esi + 0x10], G_INPUT_VECTOR
    mov dx, G_COM1 + 1
    mov al, 1
    out dx, al
    xor ecx, ecx
    G_SAY 'R'
    jmp g_sleep

# Gate EDX leads to behind the call; then the watchdog is armed, or the console listened to, and the guest sleeps.
g_set_gate:
    pop eax
    mov esi, G_IDT
    lea ebx, [esi + edx * 8]
    mov [ebx], ax
    mov cx, cs
    mov [ebx + 2], cx
    mov word ptr [ebx + 4], 0x8e00
    shr eax, 16
    mov [ebx + 6], ax
    mov word ptr [esi + 2048], 2047
    mov [esi + 2050], esi
    lidt [esi + 2048]
    cmp edx, G_INPUT_VECTOR
    je g_listen
    mov ecx, G_TICKS
    cmp edx, G_VECTOR
    jne g_arm_and_stop
    # Software enable; divide by 128; periodic.
    mov esi, G_LAPIC
    mov dword ptr [esi + 0xf0], 0x1ff
    mov dword ptr [esi + 0x3e0], 0xa
    mov dword ptr [esi + 0x320], 0x20000 + G_VECTOR
    mov ecx, G_STEADY_TICKS
    call g_arm
    mov dword ptr [esi + 0x380], G_PERIOD
    jmp g_sleep
g_arm_and_stop:
    call g_arm
    jmp g_stop

# With ECX ticks in each stage.
g_arm:
    mov word ptr [edi + G_RELOAD], 0x80
    mov word ptr [edi + G_RELOAD], 0x86
    mov [edi], ecx
    mov word ptr [edi + G_RELOAD], 0x80
    mov word ptr [edi + G_RELOAD], 0x86
    mov [edi + 4], ecx
    G_CONFIG 0x68, al, 2
    ret
kennel_bench_guest_end:

# The same as program b, in real mode, entered by the reset vector of a firmware.
    .code16
kennel_bench_rom_start:
    cli
    G_CONFIG 0x10, eax, G_REAL_MODE_BAR
    G_CONFIG 0x04, ax, 2
    mov ax, G_REAL_MODE_BAR >> 4
    mov ds, ax
    mov word ptr [G_RELOAD], 0x80
    mov word ptr [G_RELOAD], 0x86
    mov dword ptr [0], G_TICKS
    mov word ptr [G_RELOAD], 0x80
    mov word ptr [G_RELOAD], 0x86
    mov dword ptr [4], G_TICKS
    G_CONFIG 0x68, al, 2
6:  hlt
    jmp 6b
kennel_bench_rom_end:
    .code64
    .previous
