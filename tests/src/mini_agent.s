# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# A guest agent without a kernel under it; see mini_agent.rs. 32-bit protected mode, memory mapped to
# itself, interrupts off, hvm_start_info in EBX. Position-independent: it runs elsewhere than it is linked.

    .section .rodata.kennel_mini_agent, "a"
    .globl kennel_mini_agent_start
    .globl kennel_mini_agent_end
    .code32

    .set A_CONFIG_ADDRESS, 0xcf8
    .set A_CONFIG_DATA, 0xcfc
    .set A_COM1, 0x3f8
    .set A_CONSOLE_ID, 0x10431af4

    # What it remembers, and its rings: eight descriptors each, a page each.
    .set A_VARIABLES, 0x300000
    .set A_COMMON, A_VARIABLES
    .set A_NOTIFY, A_VARIABLES + 4
    .set A_MULTIPLIER, A_VARIABLES + 8
    .set A_CAP_BAR, A_VARIABLES + 12
    .set A_LEFT, A_VARIABLES + 16
    .set A_NOTIFY_AT, A_VARIABLES + 32
    .set A_RINGS, 0x310000
    .set A_AVAIL, 0x100
    .set A_USED, 0x200
    .set A_SEEN, 0x300
    .set A_BUFFERS, 0x320000
    .set A_MESSAGE, 0x340000
    .set A_REPLY, 0x350000
    .set A_MESSAGE_SIZE, 0x1000
    .set A_QUEUE_SIZE, 8
    .set A_DEVICE_WRITES, 2

kennel_mini_agent_start:
    cli
    lea esp, [A_VARIABLES]
    # EBP is where the texts are.
    call 1f
    .asciz "{\"return\":"
    .asciz ",\"id\":"
    .set A_TEXT_ID, 11
1:  pop ebp
    # The last character of the command line: a digit is how many requests are answered.
    mov dword ptr [A_LEFT], -1
    mov esi, [ebx + 24]
    test esi, esi
    jz a_find
    cmp byte ptr [esi], 0
    je a_find
2:  lodsb
    test al, al
    jnz 2b
    movzx eax, byte ptr [esi - 2]
    sub eax, '0'
    cmp eax, 9
    ja a_find
    mov [A_LEFT], eax

a_find:
    mov ebx, 0x80000000
1:  mov eax, ebx
    call a_config_read
    cmp eax, A_CONSOLE_ID
    je a_found
    add ebx, 0x800
    cmp ebx, 0x80010000
    jb 1b
    mov al, '?'
    call a_print
    jmp a_stop

a_found:
    # Memory decoding and bus mastering.
    lea eax, [ebx + 4]
    call a_config_read
    or eax, 6
    push eax
    lea eax, [ebx + 4]
    mov dx, A_CONFIG_ADDRESS
    out dx, eax
    pop eax
    mov dx, A_CONFIG_DATA
    out dx, eax
    # Virtio's structures, from the list of capabilities.
    lea eax, [ebx + 0x34]
    call a_config_read
    movzx ecx, al
a_capability:
    and ecx, 0xfc
    jz a_negotiate
    lea eax, [ebx + ecx]
    call a_config_read
    mov edi, eax
    cmp al, 9
    jne 3f
    lea eax, [ebx + ecx + 4]
    call a_config_read
    movzx eax, al
    lea eax, [ebx + 0x10 + eax * 4]
    call a_config_read
    and eax, 0xfffffff0
    mov [A_CAP_BAR], eax
    lea eax, [ebx + ecx + 8]
    call a_config_read
    add eax, [A_CAP_BAR]
    mov edx, edi
    shr edx, 24
    cmp edx, 1
    jne 1f
    mov [A_COMMON], eax
1:  cmp edx, 2
    jne 3f
    mov [A_NOTIFY], eax
    lea eax, [ebx + ecx + 16]
    call a_config_read
    mov [A_MULTIPLIER], eax
3:  mov ecx, edi
    shr ecx, 8
    and ecx, 0xff
    jmp a_capability

a_negotiate:
    mov esi, [A_COMMON]
    mov byte ptr [esi + 0x14], 0
1:  cmp byte ptr [esi + 0x14], 0
    jne 1b
    mov byte ptr [esi + 0x14], 1
    mov byte ptr [esi + 0x14], 3
    mov dword ptr [esi + 0x08], 0
    mov dword ptr [esi + 0x0c], 2
    mov dword ptr [esi + 0x08], 1
    mov dword ptr [esi + 0x0c], 1
    mov byte ptr [esi + 0x14], 0x0b
    # Control in and out, then port 1's in and out.
    mov ecx, 2
a_queue:
    mov [esi + 0x16], cx
    mov word ptr [esi + 0x18], A_QUEUE_SIZE
    mov eax, ecx
    shl eax, 12
    add eax, A_RINGS
    mov [esi + 0x20], eax
    mov dword ptr [esi + 0x24], 0
    add eax, A_AVAIL
    mov [esi + 0x28], eax
    mov dword ptr [esi + 0x2c], 0
    add eax, A_USED - A_AVAIL
    mov [esi + 0x30], eax
    mov dword ptr [esi + 0x34], 0
    movzx eax, word ptr [esi + 0x1e]
    mul dword ptr [A_MULTIPLIER]
    add eax, [A_NOTIFY]
    mov [A_NOTIFY_AT + ecx * 4], eax
    mov word ptr [esi + 0x1c], 1
    inc ecx
    cmp ecx, 6
    jb a_queue
    mov byte ptr [esi + 0x14], 0x0f

    # Eight small buffers for control messages, one large one for requests.
    xor ecx, ecx
1:  mov eax, ecx
    shl eax, 4
    mov edx, ecx
    shl edx, 8
    add edx, A_BUFFERS
    mov [A_RINGS + 0x2000 + eax], edx
    mov dword ptr [A_RINGS + 0x2000 + eax + 4], 0
    mov dword ptr [A_RINGS + 0x2000 + eax + 8], 0x100
    mov dword ptr [A_RINGS + 0x2000 + eax + 12], A_DEVICE_WRITES
    push ecx
    mov edi, 2
    call a_offer
    pop ecx
    inc ecx
    cmp ecx, A_QUEUE_SIZE
    jb 1b
    mov dword ptr [A_RINGS + 0x4000], A_MESSAGE
    mov dword ptr [A_RINGS + 0x4000 + 4], 0
    mov dword ptr [A_RINGS + 0x4000 + 8], A_MESSAGE_SIZE
    mov dword ptr [A_RINGS + 0x4000 + 12], A_DEVICE_WRITES
    mov edi, 4
    xor ecx, ecx
    call a_offer
    # DEVICE_READY.
    mov eax, -1
    mov edx, 0x10000
    call a_control

a_loop:
    mov edi, 2
    call a_take
    jc 1f
    call a_controlled
    jmp a_loop
1:  mov edi, 4
    call a_take
    jc a_loop
    call a_answer
    mov edi, 4
    xor ecx, ecx
    call a_offer
    jmp a_loop

# eax: configuration address to read; eax: what is there.
a_config_read:
    mov dx, A_CONFIG_ADDRESS
    out dx, eax
    mov dx, A_CONFIG_DATA
    in eax, dx
    ret

a_print:
    mov dx, A_COM1
    out dx, al
    mov al, 10
    out dx, al
    ret

# Offers descriptor ecx of queue edi to the device, and tells it.
a_offer:
    mov eax, edi
    shl eax, 12
    add eax, A_RINGS + A_AVAIL
    movzx edx, word ptr [eax + 2]
    and edx, A_QUEUE_SIZE - 1
    mov [eax + 4 + edx * 2], cx
    inc word ptr [eax + 2]
    lock or dword ptr [esp], 0
    mov eax, [A_NOTIFY_AT + edi * 4]
    mov [eax], di
    ret

# Takes what the device has used of queue edi: ecx is the descriptor, eax the length; carry if nothing.
a_take:
    mov edx, edi
    shl edx, 12
    add edx, A_RINGS
    movzx eax, word ptr [edx + A_SEEN]
    cmp ax, [edx + A_USED + 2]
    je 1f
    inc word ptr [edx + A_SEEN]
    and eax, A_QUEUE_SIZE - 1
    mov ecx, [edx + A_USED + 4 + eax * 8]
    mov eax, [edx + A_USED + 4 + eax * 8 + 4]
    clc
    ret
1:  pause
    stc
    ret

# Sends the first ecx bytes at eax by queue edi, and waits until they are taken.
a_send:
    mov edx, edi
    shl edx, 12
    add edx, A_RINGS
    mov [edx], eax
    mov dword ptr [edx + 4], 0
    mov [edx + 8], ecx
    mov dword ptr [edx + 12], 0
    xor ecx, ecx
    call a_offer
1:  call a_take
    jc 1b
    ret

# A control message: eax is the port, edx event and value.
a_control:
    mov [A_BUFFERS + 0x4000], eax
    mov [A_BUFFERS + 0x4004], edx
    mov eax, A_BUFFERS + 0x4000
    mov ecx, 8
    mov edi, 3
    jmp a_send

# A control message came in descriptor ecx. PORT_ADD: ready; PORT_NAME: it is the agent's, and opened.
a_controlled:
    push ecx
    shl ecx, 8
    mov eax, [A_BUFFERS + ecx]
    movzx edx, word ptr [A_BUFFERS + ecx + 4]
    cmp edx, 1
    jne 1f
    mov edx, 0x10003
    call a_control
    jmp 2f
1:  cmp edx, 7
    jne 2f
    mov edx, 0x10006
    call a_control
    mov al, '!'
    call a_print
2:  pop ecx
    mov edi, 2
    jmp a_offer

# Answers the request of eax bytes in A_MESSAGE: {"return":{}}, or the ID of a sync; and its own id.
a_answer:
    mov byte ptr [A_MESSAGE + eax], 0
    lea ecx, [A_MESSAGE + eax]
    mov edi, A_REPLY
    mov esi, A_MESSAGE
    cmp byte ptr [esi], 0xff
    jne 1f
    mov al, 0xff
    stosb
1:  mov esi, ebp
    call a_append
    mov dl, '{'
    call a_find_id
    jz 2f
    # An ordinary request; only so many of them are answered.
    cmp dword ptr [A_LEFT], -1
    je 1f
    cmp dword ptr [A_LEFT], 0
    je a_silent
    dec dword ptr [A_LEFT]
1:  mov ax, 0x7d7b
    stosw
    jmp 3f
2:  call a_copy_value
3:  mov dl, ','
    call a_find_id
    jnz 4f
    push esi
    lea esi, [ebp + A_TEXT_ID]
    call a_append
    pop esi
    call a_copy_value
4:  mov ax, 0x0a7d
    stosw
    mov ecx, edi
    mov eax, A_REPLY
    sub ecx, eax
    mov edi, 5
    jmp a_send
a_silent:
    ret

# Finds "id": behind the character dl, before ecx: zero flag, and esi behind it.
a_find_id:
    mov esi, A_MESSAGE
1:  cmp esi, ecx
    jae 2f
    inc esi
    cmp [esi - 1], dl
    jne 1b
    cmp dword ptr [esi], 0x22646922
    jne 1b
    cmp byte ptr [esi + 4], ':'
    jne 1b
    add esi, 5
    cmp esi, esi
    ret
2:  test esi, esi
    ret

# Copies a value without structure from esi to edi.
a_copy_value:
    lodsb
    cmp al, ','
    je 1f
    cmp al, '}'
    je 1f
    stosb
    cmp esi, ecx
    jb a_copy_value
1:  ret

a_append:
    lodsb
    test al, al
    jz 1f
    stosb
    jmp a_append
1:  ret

a_stop:
    hlt
    jmp a_stop

kennel_mini_agent_end:
    .code64
