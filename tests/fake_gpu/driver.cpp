// The driver, libcuda.so.1, as far as PyTorch's libraries need it to be loaded, and its version, from NVML.
#include <cstring>
#define EXPORT extern "C" __attribute__((visibility("default")))
#define NOTHING(name) EXPORT int name() { return 0; }

EXPORT int cuCtxGetCurrent(void** context) { *context = reinterpret_cast<void*>(1); return 0; }
EXPORT int cuDeviceGet(int* device, int) { return *device = 0; }
EXPORT int cuDeviceGetAttribute(int* value, int, int) { *value = 1; return 0; }
EXPORT int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) { *flags = 0; *active = 1; return 0; }
EXPORT int cuDevicePrimaryCtxRetain(void** context, int) { *context = reinterpret_cast<void*>(1); return 0; }
EXPORT int nvmlSystemGetDriverVersion(char* version, unsigned) { strcpy(version, "1.2.3"); return 0; }

NOTHING(cuCtxSetCurrent)
NOTHING(cuFuncGetAttribute)
NOTHING(cuFuncSetAttribute)
NOTHING(cuFuncSetCacheConfig)
NOTHING(cuGetErrorString)
NOTHING(cuInit)
NOTHING(cuLaunchCooperativeKernel)
NOTHING(cuLaunchKernel)
NOTHING(cuLinkAddData_v2)
NOTHING(cuLinkComplete)
NOTHING(cuLinkCreate_v2)
NOTHING(cuModuleGetFunction)
NOTHING(cuModuleLoad)
NOTHING(cuModuleLoadData)
NOTHING(cuModuleLoadDataEx)
NOTHING(cuModuleUnload)
NOTHING(cuOccupancyMaxActiveBlocksPerMultiprocessor)
NOTHING(cuPointerGetAttribute)
NOTHING(cuTensorMapEncodeTiled)
NOTHING(nvmlInit_v2)
NOTHING(nvmlShutdown)
