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
    call g_arm
    jmp g_stop

# Gate 2 leads to a handler that says so; the call pushes where that is.
g_nmi:
    call g_set_gate
g_on_nmi:
    G_SAY 'N'
    # Not every software KVM knows IRET in protected mode: one NMI a boot.
    jmp g_stop
g_set_gate:
    pop eax
    mov esi, G_IDT
    mov [esi + 16], ax
    mov cx, cs
    mov [esi + 18], cx
    mov word ptr [esi + 20], 0x8e00
    shr eax, 16
    mov [esi + 22], ax
    mov word ptr [esi + 256], 255
    mov [esi + 258], esi
    lidt [esi + 256]
    call g_arm
    jmp g_stop

g_arm:
    mov word ptr [edi + G_RELOAD], 0x80
    mov word ptr [edi + G_RELOAD], 0x86
    mov dword ptr [edi], G_TICKS
    mov word ptr [edi + G_RELOAD], 0x80
    mov word ptr [edi + G_RELOAD], 0x86
    mov dword ptr [edi + 4], G_TICKS
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
