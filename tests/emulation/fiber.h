// A second stack to run on: sixteen instructions on x86-64, ucontext elsewhere.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulation {

#if defined(__x86_64__)

extern "C" void syncflow_switch_stack(void** save, void* load);
__asm__(
    ".text\n.globl syncflow_switch_stack\n.type syncflow_switch_stack,@function\n"
    "syncflow_switch_stack:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");

struct Context {
  void* stack = nullptr;

  void prepare(void (*entry)(), char* memory, size_t bytes) {
    auto** top = reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(memory) + bytes) & ~15ul);
    top[-1] = nullptr;
    top[-2] = reinterpret_cast<void*>(entry);
    for (int i = 3; i <= 8; ++i) top[-i] = nullptr;
    stack = top - 8;
  }
  void switch_to(Context& other) { syncflow_switch_stack(&stack, other.stack); }
};

#else

struct Context {
  ucontext_t context;

  void prepare(void (*entry)(), char* memory, size_t bytes) {
    getcontext(&context);
    context.uc_stack.ss_sp = memory;
    context.uc_stack.ss_size = bytes;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
  }
  void switch_to(Context& other) { swapcontext(&context, &other.context); }
};

#endif

}  // namespace emulation
