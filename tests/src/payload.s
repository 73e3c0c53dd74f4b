# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The bare-metal programs; see payload.rs. Position-independent: it runs elsewhere than it is linked.

    .section .rodata.kennel_payload, "a"
    .globl kennel_payload_start
    .globl kennel_payload_end

    .set COM1, 0x3f8
    .set CONFIG_ADDRESS, 0xcf8
    .set CONFIG_DATA, 0xcfc
    .set WATCHDOG, 0x80002000            # bus 0, slot 4, function 0
    .set BAR, 0xfebff000
    .set NEW_BAR, 0xd0000000
    .set RELOAD, 0x0c
    .set MARK, 0x300000
    .set IOAPIC, 0xfec00000
    .set LAPIC, 0xfee00000
    # Nobody's; whoever times the guest listens there.
    .set MARK_PORT, 0xf4

# name=HEX, of the value in eax
.macro REPORT name
    lea rdi, [rip + 9f]
    call report
    jmp 8f
9:  .asciz "\name="
8:
.endm

# A line of its own.
.macro SAY text
    lea rdi, [rip + 9f]
    call puts
    call newline
    jmp 8f
9:  .asciz "\text"
8:
.endm

# Selects the dword that configuration register \reg is in; dx is the port of its lane.
.macro SELECT reg
    mov eax, WATCHDOG | (\reg & 0xfc)
    mov dx, CONFIG_ADDRESS
    out dx, eax
    mov dx, CONFIG_DATA + (\reg & 3)
.endm
.macro CONFIG_READ8 reg
    SELECT \reg
    xor eax, eax
    in al, dx
.endm
.macro CONFIG_READ16 reg
    SELECT \reg
    xor eax, eax
    in ax, dx
.endm
.macro CONFIG_READ32 reg
    SELECT \reg
    in eax, dx
.endm
.macro CONFIG_WRITE8 reg, value
    SELECT \reg
    mov al, \value
    out dx, al
.endm
.macro CONFIG_WRITE16 reg, value
    SELECT \reg
    mov ax, \value
    out dx, ax
.endm
.macro CONFIG_WRITE32 reg, value
    SELECT \reg
    mov eax, \value
    out dx, eax
.endm

# The two keys, then the caller's one protected write; rbx is the BAR.
.macro UNLOCK
    mov word ptr [rbx + RELOAD], 0x80
    mov word ptr [rbx + RELOAD], 0x86
.endm
.macro PING
    UNLOCK
    mov word ptr [rbx + RELOAD], 0x100
.endm
.macro PRELOADS ticks
    UNLOCK
    mov dword ptr [rbx], \ticks
    UNLOCK
    mov dword ptr [rbx + 4], \ticks
.endm

kennel_payload_start:
    cli
    mov r12, rsi
    lea rsp, [rip + kennel_payload_start]
    # Memory decoding on; rbx is the BAR from here on.
    CONFIG_WRITE16 0x04, 0x2
    mov ebx, BAR
    # The timed-out flag of a 16-bit RELOAD read, then cleared as Linux does.
    movzx eax, word ptr [rbx + RELOAD]
    and eax, 0x200
    REPORT timed_out
    UNLOCK
    mov word ptr [rbx + RELOAD], 0x300
    # The program's letter: the one put in here, else that of boot_params.hdr.cmd_line_ptr.
    movzx eax, byte ptr [rip + kennel_payload_letter]
    test al, al
    jnz 1f
    mov eax, [r12 + 0x228]
    mov al, [rax]
1:
    mov r13d, eax
    cmp al, 'w'
    je widths
    cmp al, 'm'
    je move_bar
    cmp al, 'b'
    je bite
    cmp al, 'l'
    je locked
    cmp al, 'n'
    je nmi
    cmp al, 'p'
    je reset_pings
    cmp al, 'c'
    je reset_control
    cmp al, 'k'
    je keyboard
    cmp al, 't'
    je triple_fault
    cmp al, 's'
    je soft_off
    cmp al, 'f'
    je flood
    cmp al, 'i'
    je intx
    cmp al, 'j'
    je msi
    cmp al, 'I'
    je intx
    cmp al, 'J'
    je msi
    cmp al, 'e'
    je ping_1000
    cmp al, 'E'
    je ping_3000
    cmp al, 'a'
    je ping_always
    SAY unknown
stop:
    cli
    hlt
    jmp stop
    .globl kennel_payload_letter
kennel_payload_letter: .byte 0

# Every access width, in both spaces; and a mark in memory, to be gone after a reset.
widths:
    mov eax, [MARK]
    REPORT mark
    mov dword ptr [MARK], 0x12345678
    CONFIG_READ32 0x00
    REPORT id32
    CONFIG_READ16 0x02
    REPORT id16
    CONFIG_READ8 0x03
    REPORT id8
    CONFIG_WRITE16 0x60, 0xffff
    CONFIG_READ16 0x60
    REPORT config16
    CONFIG_READ32 0x60
    REPORT config32
    CONFIG_READ8 0x60
    REPORT config8
    CONFIG_READ8 0x61
    REPORT config8_upper
    CONFIG_WRITE8 0x60, 0x03
    CONFIG_READ32 0x60
    REPORT config_after_8
    CONFIG_WRITE32 0x60, 0xffff0024
    CONFIG_READ32 0x60
    REPORT config_after_32
    # 32-bit unlock, as OpenBSD does it.
    mov dword ptr [rbx + RELOAD], 0x80
    mov dword ptr [rbx + RELOAD], 0x86
    mov dword ptr [rbx], 0xfff12345
    mov eax, [rbx]
    REPORT preload32
    movzx eax, word ptr [rbx]
    REPORT preload16
    movzx eax, byte ptr [rbx + 2]
    REPORT preload8
    mov eax, [rbx + 4]
    REPORT preload2
    # 8-bit unlock, as Linux 2.6 does it.
    mov byte ptr [rbx + RELOAD], 0x80
    mov byte ptr [rbx + RELOAD], 0x86
    mov dword ptr [rbx + 4], 0x777
    mov eax, [rbx + 4]
    REPORT preload2_after_8
    # Without an unlock nothing changes.
    mov dword ptr [rbx + 4], 0x888
    mov eax, [rbx + 4]
    REPORT preload2_locked
    CONFIG_WRITE32 0x68, 0x00000002
    CONFIG_READ8 0x68
    REPORT enabled32
    CONFIG_WRITE8 0x68, 0x00
    CONFIG_READ32 0x68
    REPORT disabled8
    mov eax, [rbx + 0x10]
    REPORT beyond_bar
    SAY done
    jmp stop

# Armed with about 0.2 s over both stages, pinged at its old place, moved, pinged at its new one for
# longer than that, and left alone.
move_bar:
    PRELOADS 100
    CONFIG_WRITE8 0x68, 0x02
    PING
    CONFIG_WRITE32 0x10, 0xffffffff
    CONFIG_READ32 0x10
    REPORT size
    CONFIG_WRITE32 0x10, NEW_BAR
    mov eax, [rbx + RELOAD]
    REPORT old_place
    mov ebx, NEW_BAR
    mov eax, [rbx]
    REPORT new_place
    SAY moved
    mov ecx, 20000
1:  PING
    dec ecx
    jnz 1b
    # Decoding off: a ping that reaches nobody.
    CONFIG_WRITE16 0x04, 0x0
    PING
    mov eax, [rbx]
    REPORT disabled
    CONFIG_WRITE16 0x04, 0x2
    SAY alone
    jmp stop

# Two stages of one tick each, and no ping.
bite:
    PRELOADS 1
    CONFIG_WRITE8 0x68, 0x02
    jmp stop

# Enabled and locked in one write; what tries to disable it is ignored.
locked:
    PRELOADS 200
    CONFIG_WRITE8 0x68, 0x03
    CONFIG_WRITE8 0x68, 0x00
    CONFIG_READ8 0x68
    REPORT lock
    jmp stop

# An NMI handler, and a watchdog that nobody feeds.
nmi:
    mov edi, 2
    lea rax, [rip + on_nmi]
    call handle
    PRELOADS 200
    CONFIG_WRITE8 0x68, 0x02
    jmp stop
on_nmi:
    SAY nmi
    iretq

# Fed, and reset while armed: the reset must disarm it.
reset_pings:
    PRELOADS 2000
    CONFIG_WRITE8 0x68, 0x03
    PING
reset_control:
    mov dx, 0xcf9
    mov al, 0x06
    out dx, al
    # What lies behind the request must not be reached.
    SAY went_on
    jmp stop
keyboard:
    mov al, 0xfe
    out 0x64, al
    SAY went_on
    jmp stop
triple_fault:
    mov word ptr [rip + idt_descriptor], 0
    lidt [rip + idt_descriptor]
    ud2
soft_off:
    mov dx, 0x604
    mov ax, 0x2000
    out dx, ax
    SAY went_on
    jmp stop

# Arms and disarms as fast as it can.
flood:
    SAY flooding
1:  CONFIG_WRITE8 0x68, 0x02
    CONFIG_WRITE8 0x68, 0x00
    jmp 1b

# The stage-1 interrupt by the pin: IOAPIC input 20, level, vector 0x40.
intx:
    mov edi, 0x40
    lea rax, [rip + on_stage_1]
    call handle
    call enable_lapic
    mov esi, IOAPIC
    mov dword ptr [rsi], 0x10 + 2 * 20 + 1
    mov dword ptr [rsi + 0x10], 0
    mov dword ptr [rsi], 0x10 + 2 * 20
    mov dword ptr [rsi + 0x10], 0x8040
    jmp stage_1

# The same by a message: the capability is the first one.
msi:
    mov edi, 0x40
    lea rax, [rip + on_stage_1]
    call handle
    call enable_lapic
    CONFIG_WRITE16 0x04, 0x6
    CONFIG_READ8 0x34
    REPORT capability
    CONFIG_READ32 0x40
    REPORT msi
    CONFIG_WRITE32 0x44, LAPIC
    CONFIG_WRITE32 0x48, 0
    CONFIG_WRITE32 0x4c, 0x40
    CONFIG_WRITE16 0x42, 0x1

# One tick of stage 1, and a stage 2 that does not end here. Waits for the interrupt, then long
# enough to be interrupted again if the acknowledgement were lost.
stage_1:
    cmp r13b, 'a'
    jb stage_1_for_ever
    UNLOCK
    mov dword ptr [rbx], 1
    UNLOCK
    mov dword ptr [rbx + 4], 0xfffff
    CONFIG_WRITE8 0x68, 0x02
    sti
1:  cmp dword ptr [rip + interrupts], 0
    je 1b
    mov eax, [rip + active]
    REPORT active
    mov ecx, 2000
2:  mov eax, [rbx + 8]
    dec ecx
    jnz 2b
    cli
    REPORT acknowledged
    mov eax, [rip + interrupts]
    REPORT interrupts
    mov eax, [rip + spurious]
    REPORT spurious
    # A ping starts over: stage 1 ends once more, and interrupts once more.
    PING
    sti
3:  cmp dword ptr [rip + interrupts], 1
    je 3b
    cli
    mov eax, [rip + interrupts]
    REPORT after_ping
    jmp stop

# Ten ticks of stage 1, halted until it ends, a ping, and so on. Says when it begins.
stage_1_for_ever:
    UNLOCK
    mov dword ptr [rbx], 10
    UNLOCK
    mov dword ptr [rbx + 4], 0xfffff
    mov al, 'B'
    out MARK_PORT, al
    CONFIG_WRITE8 0x68, 0x02
4:  mov eax, [rip + interrupts]
5:  sti
    hlt
    cli
    cmp [rip + interrupts], eax
    je 5b
    PING
    jmp 4b

# Says so first. Acknowledges at the device before the LAPIC, so that a level line is low before that
# looks again.
on_stage_1:
    push rax
    push rsi
    mov al, 'I'
    out MARK_PORT, al
    mov eax, [rbx + 8]
    test al, 1
    jnz 1f
    inc dword ptr [rip + spurious]
    jmp 2f
1:  mov [rip + active], eax
    mov dword ptr [rbx + 8], 1
    inc dword ptr [rip + interrupts]
2:  mov esi, LAPIC
    mov dword ptr [rsi + 0xb0], 0
    pop rsi
    pop rax
    iretq

ping_1000:
    mov ecx, 1000
    jmp ping
ping_3000:
    mov ecx, 3000
ping:
    CONFIG_WRITE8 0x68, 0x02
1:  PING
    dec ecx
    jnz 1b
    SAY pinged
    jmp stop

# About 4 s over both stages, and pinged all the time.
ping_always:
    PRELOADS 2034
    CONFIG_WRITE8 0x68, 0x02
    PING
    SAY pinging
1:  PING
    mov ecx, 5000
2:  dec ecx
    jnz 2b
    jmp 1b

# Software enable, spurious vector 0xff.
enable_lapic:
    mov esi, LAPIC
    mov dword ptr [rsi + 0xf0], 0x1ff
    ret

# Gate edi leads to rax.
handle:
    lea rsi, [rip + idt + 15]
    and rsi, -16
    shl edi, 4
    mov [rsi + rdi], ax
    mov cx, cs
    mov [rsi + rdi + 2], cx
    mov word ptr [rsi + rdi + 4], 0x8e00
    shr rax, 16
    mov [rsi + rdi + 6], ax
    shr rax, 16
    mov [rsi + rdi + 8], eax
    mov word ptr [rip + idt_descriptor], 256 * 16 - 1
    mov [rip + idt_descriptor + 2], rsi
    lidt [rip + idt_descriptor]
    ret

# rdi: name; eax: value. Keeps rbx, rcx and r12.
report:
    push rcx
    push rax
    call puts
    pop rax
    mov ecx, 8
1:  rol eax, 4
    push rax
    and al, 0xf
    cmp al, 10
    jb 2f
    add al, 'a' - '0' - 10
2:  add al, '0'
    mov dx, COM1
    out dx, al
    pop rax
    dec ecx
    jnz 1b
    call newline
    pop rcx
    ret

# rdi: text.
puts:
    mov dx, COM1
1:  mov al, [rdi]
    test al, al
    jz 2f
    out dx, al
    inc rdi
    jmp 1b
2:  ret

newline:
    mov dx, COM1
    mov al, 10
    out dx, al
    ret

    .balign 16
idt_descriptor:
    .skip 16
interrupts:
    .long 0
active:
    .long 0
spurious:
    .long 0
    # 256 gates at a multiple of 16.
idt:
    .skip 256 * 16 + 16
kennel_payload_end:
    .previous
