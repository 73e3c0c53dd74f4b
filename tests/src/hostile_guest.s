# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# A guest that means its network no good; see hostile_guest.rs. 32-bit protected mode, memory mapped to
# itself, interrupts off, hvm_start_info in EBX. What it sends, or breaks, follows it in memory.

    .section .rodata.kennel_hostile_guest, "a"
    .globl kennel_hostile_guest_start
    .globl kennel_hostile_guest_end
    .code32

    .set H_COM1, 0x3f8
    .set H_STACK, 0x300000
    # Its rings, both the same: descriptors, then a page each for what is offered and what is used.
    .set H_RINGS, 0x310000
    .set H_RING, 0x4000
    .set H_AVAIL, 0x1000
    .set H_USED, 0x2000
    .set H_SEND, H_RINGS + H_RING
    .set H_QUEUE_SIZE, 64
    # Bus 0, slot 6, function 0; its BAR, and in it the doorbell of the queue that sends.
    .set H_NET, 0x80003000
    .set H_NET_BAR, 0xfebd0000
    .set H_DOORBELL, 0x3004
    .set H_STATUS, 0x14
    .set H_NEEDS_RESET, 0x40
    # Slot 4.
    .set H_WATCHDOG, 0x80002000
    .set H_WATCHDOG_BAR, 0xfebff000
    .set H_RELOAD, 0x0c
    .set H_TICKS, 200

.macro H_CONFIG slot, register, size, value
    mov dx, 0xcf8
    mov eax, \slot | \register
    out dx, eax
    mov dx, 0xcfc
    mov eax, \value
    out dx, \size
.endm
.macro H_SAY letter
    mov dx, H_COM1
    mov al, \letter
    out dx, al
    mov al, 10
    out dx, al
.endm
.macro H_UNLOCK
    mov word ptr [edi + H_RELOAD], 0x80
    mov word ptr [edi + H_RELOAD], 0x86
.endm

kennel_hostile_guest_start:
    cli
    cld
    mov esp, H_STACK
    jmp h_end
    # EBP is what follows; BL what to do: the last character of the command line.
h_begin:
    pop ebp
    mov esi, [ebx + 24]
1:  mov bl, al
    lodsb
    test al, al
    jnz 1b
    H_CONFIG H_NET, 0x04, ax, 6
    H_CONFIG H_WATCHDOG, 0x04, ax, 2
    call h_drive
    H_SAY '+'
    # A watchdog that nobody feeds.
    mov edi, H_WATCHDOG_BAR
    H_UNLOCK
    mov dword ptr [edi], H_TICKS
    H_UNLOCK
    mov dword ptr [edi + 4], H_TICKS
    H_CONFIG H_WATCHDOG, 0x68, al, 0x02
    cmp bl, 'f'
    je h_flood
    cmp bl, 'b'
    je h_break

h_silence:
    hlt
    jmp h_silence

# Offers all frames at once, over and over, as fast as they are taken.
h_flood:
    mov edi, H_SEND
    mov esi, ebp
    xor ecx, ecx
1:  lodsd
    mov [edi], esi
    mov [edi + 8], eax
    add esi, eax
    mov [H_SEND + H_AVAIL + 4 + ecx * 2], cx
    add edi, 16
    inc ecx
    cmp ecx, H_QUEUE_SIZE
    jb 1b
    mov edi, H_NET_BAR
2:  mov ecx, H_QUEUE_SIZE
3:  add word ptr [H_SEND + H_AVAIL + 2], H_QUEUE_SIZE
    lock or dword ptr [esp], 0
    mov word ptr [edi + H_DOORBELL], 1
    mov ax, [H_SEND + H_AVAIL + 2]
4:  pause
    cmp ax, [H_SEND + H_USED + 2]
    jne 4b
    dec ecx
    jnz 3b
    H_SAY '*'
    jmp 2b

# Breaks its rings in every way that follows, each after a reset, over and over: a descriptor, which one is
# offered, and how many are said to be.
h_break:
    mov esi, ebp
    lodsd
    mov ecx, eax
1:  push ecx
    push esi
    call h_drive
    pop esi
    mov edi, H_SEND
    mov ecx, 4
    rep movsd
    lodsd
    mov [H_SEND + H_AVAIL + 4], ax
    shr eax, 16
    mov [H_SEND + H_AVAIL + 2], ax
    lock or dword ptr [esp], 0
    mov edi, H_NET_BAR
    mov word ptr [edi + H_DOORBELL], 1
    # Some are no reason to stop.
    mov ecx, 200
2:  pause
    test byte ptr [edi + H_STATUS], H_NEEDS_RESET
    jnz 3f
    loop 2b
3:  pop ecx
    dec ecx
    jnz 1b
    H_SAY '*'
    jmp h_break

# Resets the device and drives it, with empty rings.
h_drive:
    mov edi, H_RINGS
    xor eax, eax
    mov ecx, H_RING * 2 / 4
    rep stosd
    mov esi, H_NET_BAR
    mov byte ptr [esi + H_STATUS], 0
1:  cmp byte ptr [esi + H_STATUS], 0
    jne 1b
    mov byte ptr [esi + H_STATUS], 1
    mov byte ptr [esi + H_STATUS], 3
    # Version 1, and nothing else.
    mov dword ptr [esi + 0x08], 0
    mov dword ptr [esi + 0x0c], 0
    mov dword ptr [esi + 0x08], 1
    mov dword ptr [esi + 0x0c], 1
    mov byte ptr [esi + H_STATUS], 0x0b
    xor ecx, ecx
    mov eax, H_RINGS
2:  mov [esi + 0x16], cx
    mov word ptr [esi + 0x18], H_QUEUE_SIZE
    mov [esi + 0x20], eax
    mov dword ptr [esi + 0x24], 0
    lea edx, [eax + H_AVAIL]
    mov [esi + 0x28], edx
    mov dword ptr [esi + 0x2c], 0
    lea edx, [eax + H_USED]
    mov [esi + 0x30], edx
    mov dword ptr [esi + 0x34], 0
    mov word ptr [esi + 0x1c], 1
    add eax, H_RING
    inc ecx
    cmp ecx, 2
    jb 2b
    mov byte ptr [esi + H_STATUS], 0x0f
    ret

h_end:
    call h_begin
kennel_hostile_guest_end:
    .code64
