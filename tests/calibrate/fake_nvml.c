/* A stand-in for libnvidia-ml.so.1. FAKE_NVML says how the machine looks. */
#include <stdlib.h>
#include <string.h>

struct memory {
  unsigned long long total, free, used;
};

static int is(const char* state) {
  const char* set = getenv("FAKE_NVML");
  return set != NULL && strcmp(set, state) == 0;
}

int nvmlInit_v2(void) {
  return is("no-driver") ? 9 : 0;
}
int nvmlShutdown(void) {
  return 0;
}
int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = is("no-gpu") ? 0 : is("unified") ? 1 : 3;
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  static char devices[3];
  *device = &devices[index];
  return index == 1 ? 15 : 0; /* the middle one fell off the bus */
}
int nvmlDeviceGetName(void* device, char* name, unsigned length) {
  (void)device;
  strncpy(name, is("unified") ? "NVIDIA GB10" : "NVIDIA GeForce RTX 4090", length);
  return 0;
}
int nvmlDeviceGetMemoryInfo(void* device, struct memory* memory) {
  (void)device;
  if (is("unified")) {
    return 3;
  }
  memory->total = 25757220864ULL;
  memory->free = 25300000000ULL;
  memory->used = memory->total - memory->free;
  return 0;
}
int nvmlDeviceGetCudaComputeCapability(void* device, int* major, int* minor) {
  (void)device;
  *major = 8;
  *minor = 9;
  return 0;
}
