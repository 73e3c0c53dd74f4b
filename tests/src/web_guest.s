# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# A web server without a kernel under it; see web_guest.rs. Long mode, memory mapped to itself, interrupts off.
# What it says, and the constant parts of its checksums, follow it in memory.

    .section .rodata.kennel_web_guest, "a"
    .globl kennel_web_guest_start
    .globl kennel_web_guest_end
    .code64

    .set W_COM1, 0x3f8
    .set W_STACK, 0x300000
    # Its rings, both the same: descriptors, then a page each for what is offered and what is used.
    .set W_RECEIVE, 0x310000
    .set W_RING, 0x4000
    .set W_AVAIL, 0x1000
    .set W_USED, 0x2000
    .set W_SEND, W_RECEIVE + W_RING
    .set W_QUEUE_SIZE, 256
    .set W_NO_INTERRUPT, 1
    .set W_DEVICE_WRITES, 2
    # A buffer for each descriptor, and one for ARP.
    .set W_BUFFER_SHIFT, 11
    .set W_RECEIVED, 0x400000
    .set W_SENT, W_RECEIVED + (W_QUEUE_SIZE << W_BUFFER_SHIFT)
    .set W_ARP, W_SENT + (W_QUEUE_SIZE << W_BUFFER_SHIFT)
    # Bus 0, slot 6, function 0; its BAR, and in it the doorbells.
    .set W_NET, 0x80003000
    .set W_NET_BAR, 0xfebd0000
    .set W_RECEIVE_BELL, 0x3000
    .set W_SEND_BELL, 0x3004
    .set W_STATUS, 0x14
    # Buffers given back until the device is told: it has as many again.
    .set W_GIVEN, W_QUEUE_SIZE / 2
    # Frames sent until it is told, also when there is more to do.
    .set W_BATCH, 32

    # What follows the code.
    .set W_MAC, 0
    .set W_IP, 8
    .set W_SUMS, 12
    .set W_ANSWER, 28
    .set W_ANSWER_SIZE, 24
    # So many requests from now, the last one included, it leaves: this port is written this value.
    .set W_LAST, 52
    .set W_LAST_PORT, 56
    .set W_LAST_VALUE, 58
    .set W_POWER, 0x604

    # A frame with the header of 12 bytes: Ethernet, IPv4 or ARP, TCP.
    .set F_TO, 12
    .set F_FROM, 18
    .set F_TYPE, 24
    .set F_VERSION, 26
    .set F_LENGTH, 28
    .set F_FRAGMENT, 32
    .set F_LIVES, 34
    .set F_PROTOCOL, 35
    .set F_IP_SUM, 36
    .set F_SOURCE, 38
    .set F_TARGET, 42
    .set F_PORTS, 46
    .set F_SEQUENCE, 50
    .set F_ACKNOWLEDGED, 54
    .set F_OFFSET, 58
    .set F_FLAGS, 59
    .set F_TCP_SUM, 62
    .set F_DATA, 66
    .set F_ARP_KIND, 32
    .set F_ARP_SENDER, 34
    .set F_ARP_SENDER_IP, 40
    .set F_ARP_TARGET, 44
    .set F_ARP_TARGET_IP, 50
    .set F_ARP_END, 54

    .set FIN, 1
    .set SYN, 2
    .set RST, 4
    .set PSH, 8
    .set ACK, 16
    # Where its half of each connection begins: so what it has sent is told by what is acknowledged.
    .set W_FIRST, 0x10000

# Copies a hardware address.
.macro W_COPY_MAC from, to
    mov eax, [\from]
    mov [\to], eax
    mov ax, [\from + 4]
    mov [\to + 4], ax
.endm

kennel_web_guest_start:
    cli
    cld
    mov esp, W_STACK
    # RBP is what follows; R10 the BAR; R11 frames offered, R12 frames seen, R13 buffers given back and not told,
    # R14 frames offered and not told.
    lea rbp, [rip + kennel_web_guest_end]
    mov r10d, W_NET_BAR
    xor r11d, r11d
    xor r12d, r12d
    xor r13d, r13d
    xor r14d, r14d
    # Memory decoding and bus mastering.
    mov dx, 0xcf8
    mov eax, W_NET | 0x04
    out dx, eax
    mov dx, 0xcfc
    mov ax, 6
    out dx, ax
    call w_fill
    call w_drive
    mov dx, W_COM1
    mov al, '+'
    out dx, al
    mov al, 10
    out dx, al

w_loop:
    cmp r12w, [W_RECEIVE + W_USED + 2]
    je w_idle
    movzx eax, r12b
    mov esi, [W_RECEIVE + W_USED + 4 + rax * 8]
    inc r12d
    push rsi
    shl esi, W_BUFFER_SHIFT
    add esi, W_RECEIVED
    call w_frame
    pop rsi
    movzx eax, byte ptr [W_RECEIVE + W_AVAIL + 2]
    mov [W_RECEIVE + W_AVAIL + 4 + rax * 2], si
    inc word ptr [W_RECEIVE + W_AVAIL + 2]
    inc r13d
    cmp r14d, W_BATCH
    jb w_loop
w_idle:
    call w_tell
    cmp r13d, W_GIVEN
    jb 1f
    lock or dword ptr [rsp - 8], 0
    mov word ptr [r10 + W_RECEIVE_BELL], 0
    xor r13d, r13d
1:  pause
    jmp w_loop

# Tells the device of the frames offered.
w_tell:
    test r14d, r14d
    jz 1f
    lock or dword ptr [rsp - 8], 0
    mov word ptr [r10 + W_SEND_BELL], 1
    xor r14d, r14d
1:  ret

# Deals with the frame at RSI.
w_frame:
    movzx eax, word ptr [rsi + F_TYPE]
    cmp eax, 0x0608
    je w_arp
    cmp eax, 0x0008
    jne w_ignore
    cmp byte ptr [rsi + F_VERSION], 0x45
    jne w_ignore
    cmp byte ptr [rsi + F_PROTOCOL], 6
    jne w_ignore
    mov eax, [rbp + W_IP]
    cmp eax, [rsi + F_TARGET]
    jne w_ignore
    movzx eax, byte ptr [rsi + F_FLAGS]
    test al, RST
    jnz w_ignore
    mov edx, [rsi + F_SEQUENCE]
    bswap edx
    mov ebx, [rsi + F_ACKNOWLEDGED]
    bswap ebx
    test al, SYN
    jnz w_syn
    # Bytes of data: the packet's, less both headers'.
    movzx ecx, word ptr [rsi + F_LENGTH]
    xchg cl, ch
    sub ecx, 20
    movzx r8d, byte ptr [rsi + F_OFFSET]
    shr r8d, 4
    shl r8d, 2
    sub ecx, r8d
    jg w_data
    test al, FIN
    jz w_ignore
    # The client hangs up: so does this end, unless it has before.
    inc edx
    mov ecx, ACK
    cmp ebx, W_FIRST + 1
    jne w_short
    mov ecx, FIN | ACK
w_short:
    xor r8d, r8d
    jmp w_tcp
w_syn:
    inc edx
    mov ebx, W_FIRST
    mov ecx, SYN | ACK
    jmp w_short
    # Whatever is asked: the answer and the end, and both again if they were lost.
w_data:
    dec dword ptr [rbp + W_LAST]
    jz w_leave
    add edx, ecx
    and eax, FIN
    add edx, eax
    mov ebx, W_FIRST + 1
    mov ecx, FIN | PSH | ACK
    mov r8d, 1
    jmp w_tcp
w_ignore:
    ret

# Powers off or resets the machine over a request that it has taken and will not answer.
w_leave:
    mov dx, [rbp + W_LAST_PORT]
    mov ax, [rbp + W_LAST_VALUE]
    cmp dx, W_POWER
    je 1f
    out dx, al
    jmp 2f
1:  out dx, ax
2:  hlt
    jmp 2b

# Answers RSI by a segment: sequence EBX, acknowledged EDX, flags ECX, and the answer if R8 is 1 and not 0.
w_tcp:
    call w_place
    # Back to where it came from.
    W_COPY_MAC rsi + F_FROM, rdi + F_TO
    mov r9d, [rsi + F_SOURCE]
    mov [rdi + F_TARGET], r9d
    mov eax, [rbp + W_SUMS + r8 * 8]
    add eax, r9d
    adc eax, 0
    call w_fold
    mov [rdi + F_IP_SUM], ax
    mov eax, [rsi + F_PORTS]
    rol eax, 16
    mov [rdi + F_PORTS], eax
    bswap ebx
    mov [rdi + F_SEQUENCE], ebx
    bswap edx
    mov [rdi + F_ACKNOWLEDGED], edx
    shl ecx, 8
    or ecx, 0xffff0050
    mov [rdi + F_OFFSET], ecx
    add eax, [rbp + W_SUMS + 4 + r8 * 8]
    adc eax, r9d
    adc eax, ebx
    adc eax, edx
    adc eax, ecx
    adc eax, 0
    call w_fold
    mov [rdi + F_TCP_SUM], ax
    imul r8d, r8d, W_ANSWER_SIZE
    lea eax, [r8 + 40]
    xchg al, ah
    mov [rdi + F_LENGTH], ax
    lea eax, [r8 + F_DATA]

# Offers EAX bytes at RDI to the device, by the descriptor that w_place found.
w_offer:
    movzx ecx, r11b
    shl ecx, 4
    mov [W_SEND + rcx], rdi
    mov [W_SEND + rcx + 8], eax
    inc r11d
    mov [W_SEND + W_AVAIL + 2], r11w
    inc r14d
    ret

# Waits for a free descriptor: RDI is its buffer.
w_place:
    mov eax, r11d
    sub ax, [W_SEND + W_USED + 2]
    cmp ax, W_QUEUE_SIZE
    jb 1f
    call w_tell
    pause
    jmp w_place
1:  movzx edi, r11b
    shl edi, W_BUFFER_SHIFT
    add edi, W_SENT
    ret

# A checksum of its sum EAX: AX.
w_fold:
    mov r15d, eax
    shr r15d, 16
    add ax, r15w
    adc ax, 0
    not ax
    ret

# Who has an address?
w_arp:
    cmp word ptr [rsi + F_ARP_KIND], 0x0100
    jne w_ignore
    mov eax, [rbp + W_IP]
    cmp eax, [rsi + F_ARP_TARGET_IP]
    jne w_ignore
    call w_place
    mov edi, W_ARP
    mov rax, [rsi + F_TYPE]
    mov [rdi + F_TYPE], rax
    mov word ptr [rdi + F_ARP_KIND], 0x0200
    W_COPY_MAC rsi + F_ARP_SENDER, rdi + F_TO
    W_COPY_MAC rsi + F_ARP_SENDER, rdi + F_ARP_TARGET
    mov eax, [rsi + F_ARP_SENDER_IP]
    mov [rdi + F_ARP_TARGET_IP], eax
    W_COPY_MAC rbp + W_MAC, rdi + F_FROM
    W_COPY_MAC rbp + W_MAC, rdi + F_ARP_SENDER
    mov eax, [rbp + W_IP]
    mov [rdi + F_ARP_SENDER_IP], eax
    mov eax, F_ARP_END
    jmp w_offer

# Fills the rings, and what no frame changes.
w_fill:
    xor ecx, ecx
1:  mov eax, ecx
    shl eax, W_BUFFER_SHIFT
    add eax, W_RECEIVED
    mov edx, ecx
    shl edx, 4
    mov [W_RECEIVE + rdx], rax
    mov dword ptr [W_RECEIVE + rdx + 8], 1 << W_BUFFER_SHIFT
    mov dword ptr [W_RECEIVE + rdx + 12], W_DEVICE_WRITES
    mov [W_RECEIVE + W_AVAIL + 4 + rcx * 2], cx
    mov [W_SEND + W_AVAIL + 4 + rcx * 2], cx
    lea edi, [rax + W_SENT - W_RECEIVED]
    W_COPY_MAC rbp + W_MAC, rdi + F_FROM
    mov word ptr [rdi + F_TYPE], 0x0008
    mov word ptr [rdi + F_VERSION], 0x45
    mov word ptr [rdi + F_FRAGMENT], 0x40
    mov word ptr [rdi + F_LIVES], 0x0640
    mov eax, [rbp + W_IP]
    mov [rdi + F_SOURCE], eax
    lea rsi, [rbp + W_ANSWER]
    add edi, F_DATA
    mov edx, ecx
    mov ecx, W_ANSWER_SIZE
    rep movsb
    lea ecx, [rdx + 1]
    cmp ecx, W_QUEUE_SIZE
    jb 1b
    mov dword ptr [W_RECEIVE + W_AVAIL], W_NO_INTERRUPT | (W_QUEUE_SIZE << 16)
    mov word ptr [W_SEND + W_AVAIL], W_NO_INTERRUPT
    ret

# Drives the device with these rings: version 1, and nothing else.
w_drive:
    mov byte ptr [r10 + W_STATUS], 0
1:  cmp byte ptr [r10 + W_STATUS], 0
    jne 1b
    mov byte ptr [r10 + W_STATUS], 1
    mov byte ptr [r10 + W_STATUS], 3
    mov dword ptr [r10 + 0x08], 0
    mov dword ptr [r10 + 0x0c], 0
    mov dword ptr [r10 + 0x08], 1
    mov dword ptr [r10 + 0x0c], 1
    mov byte ptr [r10 + W_STATUS], 0x0b
    xor ecx, ecx
    mov eax, W_RECEIVE
2:  mov [r10 + 0x16], cx
    mov word ptr [r10 + 0x18], W_QUEUE_SIZE
    mov [r10 + 0x20], eax
    mov dword ptr [r10 + 0x24], 0
    lea edx, [rax + W_AVAIL]
    mov [r10 + 0x28], edx
    mov dword ptr [r10 + 0x2c], 0
    lea edx, [rax + W_USED]
    mov [r10 + 0x30], edx
    mov dword ptr [r10 + 0x34], 0
    mov word ptr [r10 + 0x1c], 1
    add eax, W_RING
    inc ecx
    cmp ecx, 2
    jb 2b
    mov byte ptr [r10 + W_STATUS], 0x0f
    mov word ptr [r10 + W_RECEIVE_BELL], 0
    ret

kennel_web_guest_end:
