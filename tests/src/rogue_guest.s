# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# A guest that means its machine no good; see rogue_guest.rs. 32-bit protected mode, memory mapped to itself,
# interrupts off, hvm_start_info in EBX. Position-independent: it runs elsewhere than it is linked.

    .section .rodata.kennel_rogue_guest, "a"
    .globl kennel_rogue_guest_start
    .globl kennel_rogue_guest_end
    .code32

    .set R_COM1, 0x3f8
    .set R_STACK, 0x300000
    # Slots 4 and 5, with their BARs, and a place where no other BAR is.
    .set R_WATCHDOG, 0x80002000
    .set R_WATCHDOG_BAR, 0xfebff000
    .set R_CONSOLE, 0x80002800
    .set R_CONSOLE_BAR, 0xfebe0000
    .set R_ELSEWHERE, 0xd0000000
    .set R_RELOAD, 0x0c
    .set R_TICKS, 610
    # In the console's BAR.
    .set R_STATUS, 0x14
    .set R_DOORBELLS, 0x3000
    # Its rings, all the same: descriptors, then a page each for what is offered and what is used.
    .set R_RINGS, 0x310000
    .set R_RING, 0x4000
    .set R_AVAIL, 0x1000
    .set R_USED, 0x2000
    .set R_QUEUE_SIZE, 64
    .set R_QUEUES, 6
    # Queues that send: port 0, control, port 1, which is the agent's.
    .set R_PRINT, 1
    .set R_CONTROL, 3
    .set R_AGENT, 5
    # What is sent.
    .set R_FILLER, 0x400000
    .set R_MIB, 0x100000
    # Where a message's beginning and its end are among the texts, and where those end.
    .set R_BEGINNING, 24
    .set R_END, 54
    .set R_TEXTS, 58

.macro R_CONFIG slot, register, size, value
    mov dx, 0xcf8
    mov eax, \slot | \register
    out dx, eax
    mov dx, 0xcfc
    mov eax, \value
    out dx, \size
.endm
.macro R_UNLOCK
    mov word ptr [edi + R_RELOAD], 0x80
    mov word ptr [edi + R_RELOAD], 0x86
.endm
# Fills descriptor EDI, and goes on to the next.
.macro R_DESCRIPTOR length
    mov [edi], eax
    mov dword ptr [edi + 8], \length
    add edi, 16
.endm

kennel_rogue_guest_start:
    cli
    cld
    mov esp, R_STACK
    # EBP is where the texts are.
    call 1f
    # The console is ready, port 1 is ready, port 1 is open.
    .long -1
    .short 0, 1
    .long 1
    .short 3, 1
    .long 1
    .short 6, 1
    .ascii "{\"error\":{\"class\":\"x\",\"desc\":\""
    .ascii "\"}}\n"
1:  pop ebp
    # BL is what to do: the last character of the command line.
    mov esi, [ebx + 24]
2:  mov bl, al
    lodsb
    test al, al
    jnz 2b
    mov dx, R_COM1
    mov al, '+'
    out dx, al
    cmp bl, 'r'
    jne 3f
    mov dx, 0xcf9
    mov al, 6
    out dx, al
3:  R_CONFIG R_WATCHDOG, 0x04, ax, 2
    R_CONFIG R_CONSOLE, 0x04, ax, 6
    # A watchdog that nobody feeds.
    mov edi, R_WATCHDOG_BAR
    R_UNLOCK
    mov dword ptr [edi], R_TICKS
    R_UNLOCK
    mov dword ptr [edi + 4], R_TICKS
    R_CONFIG R_WATCHDOG, 0x68, al, 2
    cmp bl, 'b'
    je r_collide
    cmp bl, 'v'
    je r_print
    cmp bl, 'l'
    je r_talk
r_silence:
    hlt
    jmp r_silence

r_collide:
    R_CONFIG R_WATCHDOG, 0x10, eax, R_CONSOLE_BAR
1:  mov eax, R_ELSEWHERE
    out dx, eax
    mov eax, R_CONSOLE_BAR
    out dx, eax
    jmp 1b

# 32 pieces of 256 KiB at once.
r_print:
    call r_drive
    mov edi, R_RINGS + R_PRINT * R_RING
    mov ecx, R_QUEUE_SIZE
    mov eax, R_FILLER
1:  R_DESCRIPTOR R_MIB / 4
    loop 1b
2:  mov ecx, 32
    mov edi, R_PRINT
    call r_send
    jmp 2b

# A message of 49 pieces: its beginning, 47 MiB, its end.
r_talk:
    call r_drive
    mov edi, R_RINGS + R_CONTROL * R_RING
    mov eax, ebp
    mov ecx, 3
1:  R_DESCRIPTOR 8
    add eax, 8
    loop 1b
    mov ecx, 3
    mov edi, R_CONTROL
    call r_send
    mov edi, R_RINGS + R_AGENT * R_RING
    lea eax, [ebp + R_BEGINNING]
    R_DESCRIPTOR R_END - R_BEGINNING
    mov eax, R_FILLER
    mov ecx, 47
2:  R_DESCRIPTOR R_MIB
    loop 2b
    lea eax, [ebp + R_END]
    R_DESCRIPTOR R_TEXTS - R_END
3:  mov ecx, 49
    mov edi, R_AGENT
    call r_send
    jmp 3b

# Offers queue EDI's descriptors from 0 up to ECX, and waits until all are used.
r_send:
    mov esi, R_CONSOLE_BAR + R_DOORBELLS
    lea esi, [esi + edi * 4]
    push edi
    imul edi, edi, R_RING
    add edi, R_RINGS
    xor edx, edx
    mov ax, [edi + R_AVAIL + 2]
1:  push eax
    and eax, R_QUEUE_SIZE - 1
    mov [edi + R_AVAIL + 4 + eax * 2], dx
    pop eax
    inc eax
    inc edx
    cmp edx, ecx
    jb 1b
    mov [edi + R_AVAIL + 2], ax
    lock or dword ptr [esp], 0
    pop edx
    mov [esi], dx
2:  pause
    cmp ax, [edi + R_USED + 2]
    jne 2b
    ret

# Drives the console with all of its queues, and fills what is sent.
r_drive:
    mov edi, R_FILLER
    mov ecx, R_MIB / 4
    mov eax, 0x78787878
    rep stosd
    mov esi, R_CONSOLE_BAR
    mov byte ptr [esi + R_STATUS], 0
1:  cmp byte ptr [esi + R_STATUS], 0
    jne 1b
    mov byte ptr [esi + R_STATUS], 1
    mov byte ptr [esi + R_STATUS], 3
    # Several ports, version 1, and nothing else.
    mov dword ptr [esi + 0x08], 0
    mov dword ptr [esi + 0x0c], 2
    mov dword ptr [esi + 0x08], 1
    mov dword ptr [esi + 0x0c], 1
    mov byte ptr [esi + R_STATUS], 0x0b
    xor ecx, ecx
    mov eax, R_RINGS
2:  mov [esi + 0x16], cx
    mov word ptr [esi + 0x18], R_QUEUE_SIZE
    mov [esi + 0x20], eax
    mov dword ptr [esi + 0x24], 0
    lea edx, [eax + R_AVAIL]
    mov [esi + 0x28], edx
    mov dword ptr [esi + 0x2c], 0
    lea edx, [eax + R_USED]
    mov [esi + 0x30], edx
    mov dword ptr [esi + 0x34], 0
    mov word ptr [esi + 0x1c], 1
    add eax, R_RING
    inc ecx
    cmp ecx, R_QUEUES
    jb 2b
    mov byte ptr [esi + R_STATUS], 0x0f
    ret
kennel_rogue_guest_end:
    .code64
    .previous
