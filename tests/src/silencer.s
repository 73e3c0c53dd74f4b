# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# A guest that would silence its watchdog; see silencer.rs. 32-bit protected mode, memory mapped to itself,
# interrupts off, hvm_start_info in EBX.

    .section .rodata.kennel_silencer, "a"
    .globl kennel_silencer_start
    .globl kennel_silencer_end
    .code32

    .set S_COM1, 0x3f8
    .set S_RESET, 0xcf9
    .set S_STACK, 0x300000
    # Rings of the console's six queues: descriptors, then a page each for what is offered and what is used.
    .set S_RINGS, 0x310000
    .set S_RING, 0x4000
    .set S_AVAIL, 0x1000
    .set S_USED, 0x2000
    .set S_QUEUES, 6
    .set S_QUEUE_SIZE, 32
    .set S_PRINTS, S_RINGS + 1 * S_RING
    .set S_CONTROLS, S_RINGS + 3 * S_RING
    .set S_SAYS, S_RINGS + 5 * S_RING
    # Small things, and 2 MiB of text.
    .set S_SMALL, 0x380000
    .set S_TEXT, 0x400000
    .set S_TEXT_BYTES, 0x200000
    # A message: its begin, so many times the text, its end. 46 MiB.
    .set S_TEXTS, 23
    # Bus 0, slots 5 and 4.
    .set S_CONSOLE, 0x80002800
    .set S_CONSOLE_BAR, 0xfebe0000
    .set S_STATUS, 0x14
    .set S_DOORBELLS, 0x3000
    .set S_WATCHDOG, 0x80002000
    .set S_WATCHDOG_BAR, 0xfebff000
    .set S_RELOAD, 0x0c
    .set S_TICKS, 200
    # More than a second: bites are told once a second at most.
    .set S_SLOW_TICKS, 610
    # A place that nobody has.
    .set S_FREE, 0xd0000000
    .set S_MOVES, 4096

.macro S_CONFIG slot, register, size, value
    mov dx, 0xcf8
    mov eax, \slot | \register
    out dx, eax
    mov dx, 0xcfc
    mov eax, \value
    out dx, \size
.endm
.macro S_PRINT letter
    mov dx, S_COM1
    mov al, \letter
    out dx, al
    mov al, 10
    out dx, al
.endm
.macro S_UNLOCK
    mov word ptr [edi + S_RELOAD], 0x80
    mov word ptr [edi + S_RELOAD], 0x86
.endm
# Puts a descriptor at EDI, which it moves on.
.macro S_DESCRIBE address, bytes
    mov dword ptr [edi], \address
    mov dword ptr [edi + 4], 0
    mov dword ptr [edi + 8], \bytes
    mov dword ptr [edi + 12], 0
    add edi, 16
.endm

kennel_silencer_start:
    cli
    cld
    mov esp, S_STACK
    # BL is what to do: the last character of the command line.
    mov esi, [ebx + 24]
1:  mov bl, al
    lodsb
    test al, al
    jnz 1b
    # EBP is how many ticks each stage has: more for a capital.
    mov ebp, S_TICKS
    test bl, 0x20
    jnz 2f
    mov ebp, S_SLOW_TICKS
    or bl, 0x20
2:  S_CONFIG S_CONSOLE, 0x04, ax, 6
    S_CONFIG S_WATCHDOG, 0x04, ax, 2
    cmp bl, 'r'
    je s_reset
    cmp bl, 'd'
    je s_deaf
    cmp bl, 'c'
    je s_collide
    cmp bl, 'p'
    je s_flood_console
    cmp bl, 'a'
    je s_flood_agent

s_silence:
    call s_arm
1:  hlt
    jmp 1b

s_reset:
    S_PRINT '+'
    mov dx, S_RESET
    mov al, 6
    out dx, al
1:  hlt
    jmp 1b

# Prints more than a pipe and the machine's backlog hold, breaks the console's rings, and hangs.
s_deaf:
    mov ecx, 0x100000
    mov esi, S_TEXT
    mov dx, S_COM1
    rep outsb
    xor edx, edx
    call s_drive
    mov edi, S_PRINTS
    S_DESCRIBE S_FREE, 4096
    mov word ptr [S_PRINTS + S_AVAIL + 2], 1
    mov word ptr [S_CONSOLE_BAR + S_DOORBELLS + 4], 1
    jmp s_silence

# Moves the watchdog's BAR over the console's, and away, for ever.
s_collide:
    call s_arm
1:  mov ecx, S_MOVES
2:  S_CONFIG S_WATCHDOG, 0x10, eax, S_CONSOLE_BAR
    S_CONFIG S_WATCHDOG, 0x10, eax, S_FREE
    dec ecx
    jnz 2b
    S_PRINT '*'
    jmp 1b

# Prints at the virtio console more than anybody takes, for ever.
s_flood_console:
    xor edx, edx
    call s_drive
    call s_arm
    mov edi, S_PRINTS
    xor ecx, ecx
1:  S_DESCRIBE S_TEXT, 0x40000
    mov [S_PRINTS + S_AVAIL + 4 + ecx * 2], cx
    inc ecx
    cmp ecx, S_QUEUE_SIZE
    jb 1b
2:  add word ptr [S_PRINTS + S_AVAIL + 2], S_QUEUE_SIZE
    mov word ptr [S_CONSOLE_BAR + S_DOORBELLS + 4], 1
    mov ax, [S_PRINTS + S_AVAIL + 2]
3:  pause
    cmp ax, [S_PRINTS + S_USED + 2]
    jne 3b
    S_PRINT '*'
    jmp 2b

# Sends long messages on the agent's port that nobody has asked for, for ever.
s_flood_agent:
    mov edi, S_TEXT
    mov al, 'x'
    mov ecx, S_TEXT_BYTES
    rep stosb
    # Several ports.
    mov edx, 2
    call s_drive
    # The device is ready, port 1 is ready, port 1 is open.
    mov dword ptr [S_SMALL], 0xffffffff
    mov dword ptr [S_SMALL + 4], 0x10000
    mov dword ptr [S_SMALL + 8], 1
    mov dword ptr [S_SMALL + 12], 0x10003
    mov dword ptr [S_SMALL + 16], 1
    mov dword ptr [S_SMALL + 20], 0x10006
    mov edi, S_CONTROLS
    S_DESCRIBE S_SMALL, 8
    S_DESCRIBE S_SMALL + 8, 8
    S_DESCRIBE S_SMALL + 16, 8
    mov word ptr [S_CONTROLS + S_AVAIL + 6], 1
    mov word ptr [S_CONTROLS + S_AVAIL + 8], 2
    mov word ptr [S_CONTROLS + S_AVAIL + 2], 3
    mov word ptr [S_CONSOLE_BAR + S_DOORBELLS + 3 * 4], 3
1:  pause
    cmp word ptr [S_CONTROLS + S_USED + 2], 3
    jne 1b
    # {"return":"x and "}
    mov dword ptr [S_SMALL], 0x6572227b
    mov dword ptr [S_SMALL + 4], 0x6e727574
    mov dword ptr [S_SMALL + 8], 0x78223a22
    mov dword ptr [S_SMALL + 12], 0x200a7d22
    mov edi, S_SAYS
    S_DESCRIBE S_SMALL, 12
    mov ecx, S_TEXTS
2:  S_DESCRIBE S_TEXT, S_TEXT_BYTES
    dec ecx
    jnz 2b
    S_DESCRIBE S_SMALL + 12, 4
    call s_arm
    xor esi, esi
3:  xor ecx, ecx
4:  mov eax, esi
    and eax, S_QUEUE_SIZE - 1
    mov [S_SAYS + S_AVAIL + 4 + eax * 2], cx
    inc esi
    inc ecx
    cmp ecx, S_TEXTS + 2
    jb 4b
    mov [S_SAYS + S_AVAIL + 2], si
    mov word ptr [S_CONSOLE_BAR + S_DOORBELLS + 5 * 4], 5
5:  pause
    cmp si, [S_SAYS + S_USED + 2]
    jne 5b
    S_PRINT '*'
    jmp 3b

# Enables the watchdog, which nobody feeds.
s_arm:
    mov edi, S_WATCHDOG_BAR
    S_UNLOCK
    mov [edi], ebp
    S_UNLOCK
    mov [edi + 4], ebp
    S_CONFIG S_WATCHDOG, 0x68, al, 0x02
    S_PRINT '+'
    ret

# Drives the console, with empty rings and the features in EDX.
s_drive:
    mov edi, S_RINGS
    xor eax, eax
    mov ecx, S_RING * S_QUEUES / 4
    rep stosd
    mov esi, S_CONSOLE_BAR
    mov byte ptr [esi + S_STATUS], 0
    mov byte ptr [esi + S_STATUS], 1
    mov byte ptr [esi + S_STATUS], 3
    mov dword ptr [esi + 0x08], 0
    mov [esi + 0x0c], edx
    mov dword ptr [esi + 0x08], 1
    mov dword ptr [esi + 0x0c], 1
    mov byte ptr [esi + S_STATUS], 0x0b
    xor ecx, ecx
    mov eax, S_RINGS
1:  mov [esi + 0x16], cx
    mov word ptr [esi + 0x18], S_QUEUE_SIZE
    mov [esi + 0x20], eax
    mov dword ptr [esi + 0x24], 0
    lea edx, [eax + S_AVAIL]
    mov [esi + 0x28], edx
    mov dword ptr [esi + 0x2c], 0
    lea edx, [eax + S_USED]
    mov [esi + 0x30], edx
    mov dword ptr [esi + 0x34], 0
    mov word ptr [esi + 0x1c], 1
    add eax, S_RING
    inc ecx
    cmp ecx, S_QUEUES
    jb 1b
    mov byte ptr [esi + S_STATUS], 0x0f
    ret
kennel_silencer_end:
    .code64
