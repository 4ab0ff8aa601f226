// The functions of the CUDA runtime that have an effect. Kernels are counted and not run, so that new memory stays zero.
// Copies are done, so that weights and labels are on the device, except from pinned memory: the images, which are large.
#include "counts.h"

#include <cuda_runtime_api.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace {

constexpr size_t MEMORY = size_t(80) << 30;
constexpr int PROCESSORS = 132;

enum class Place { pageable, pinned, device };
struct Block { size_t bytes; Place place; };
struct Total { long times = 0; size_t bytes = 0; };
struct Launch { dim3 grid, block; size_t shared; cudaStream_t stream; };

std::mutex mutex;
thread_local std::vector<Launch> launches;

// PyTorch's libraries register their kernels before the static variables of this library are constructed.
std::map<std::string, Total>& totals() { static auto* map = new std::map<std::string, Total>; return *map; }
std::map<uintptr_t, Block>& blocks() { static auto* map = new std::map<uintptr_t, Block>; return *map; }
std::unordered_map<const void*, std::string>& kernels() {
    static auto* map = new std::unordered_map<const void*, std::string>;
    return *map;
}

void add_block(void* address, size_t bytes, Place place) {
    std::lock_guard<std::mutex> lock(mutex);
    blocks()[uintptr_t(address)] = {bytes, place};
}

size_t remove_block(void* address) {
    std::lock_guard<std::mutex> lock(mutex);
    auto found = blocks().find(uintptr_t(address));
    if (found == blocks().end()) return 0;
    size_t bytes = found->second.bytes;
    blocks().erase(found);
    return bytes;
}

Place place_of(const void* address) {
    std::lock_guard<std::mutex> lock(mutex);
    auto after = blocks().upper_bound(uintptr_t(address));
    if (after == blocks().begin()) return Place::pageable;
    auto found = std::prev(after);
    bool inside = uintptr_t(address) < found->first + found->second.bytes;
    return inside ? found->second.place : Place::pageable;
}

cudaError_t copy(void* to, const void* from, size_t bytes, bool waits) {
    static const char* names[] = {"pageable", "pinned", "device"};
    Place source = place_of(from), target = place_of(to);
    count(std::string(waits ? "copy and wait " : "copy ") + names[int(source)] + " to " + names[int(target)], bytes);
    if (target != Place::device || source != Place::pinned) memcpy(to, from, bytes);
    return cudaSuccess;
}

cudaError_t launch(const void* kernel) {
    auto found = kernels().find(kernel);
    count("kernel " + (found == kernels().end() ? "unknown" : found->second));
    return cudaSuccess;
}

template <class Handle> cudaError_t create(Handle* handle) {
    *handle = Handle(malloc(16));
    return cudaSuccess;
}

}  // namespace

void count(const std::string& event, size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex);
    Total& total = totals()[event];
    total.times++;
    total.bytes += bytes;
}

// Write a line "event TAB times TAB bytes" for each event to `out`, and return the number of characters.
EXPORT size_t fake_gpu_counts(char* out, size_t size) {
    std::lock_guard<std::mutex> lock(mutex);
    std::string text;
    for (auto& [event, total] : totals())
        text += event + "\t" + std::to_string(total.times) + "\t" + std::to_string(total.bytes) + "\n";
    snprintf(out, size, "%s", text.c_str());
    return text.size();
}

EXPORT void fake_gpu_reset() {
    std::lock_guard<std::mutex> lock(mutex);
    totals().clear();
}

// Device
EXPORT cudaError_t cudaGetDeviceCount(int* devices) { *devices = 1; return cudaSuccess; }
EXPORT cudaError_t cudaGetDevice(int* device) { *device = 0; return cudaSuccess; }
EXPORT cudaError_t cudaDriverGetVersion(int* version) { *version = CUDART_VERSION; return cudaSuccess; }
EXPORT cudaError_t cudaRuntimeGetVersion(int* version) { *version = CUDART_VERSION; return cudaSuccess; }
EXPORT const char* cudaGetErrorString(cudaError_t) { return "error of the fake GPU"; }
EXPORT const char* cudaGetErrorName(cudaError_t) { return "error of the fake GPU"; }
EXPORT cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { *can = 0; return cudaSuccess; }
EXPORT cudaError_t cudaDeviceGetPCIBusId(char* id, int size, int) {
    snprintf(id, size_t(size), "0000:00:00.0");
    return cudaSuccess;
}
EXPORT cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}
EXPORT cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    static const std::map<cudaDeviceAttr, int> values = {
        {cudaDevAttrMultiProcessorCount, PROCESSORS}, {cudaDevAttrComputeCapabilityMajor, 9},
        {cudaDevAttrComputeCapabilityMinor, 0},       {cudaDevAttrMaxThreadsPerBlock, 1024},
        {cudaDevAttrMaxSharedMemoryPerBlock, 49152},  {cudaDevAttrMaxSharedMemoryPerBlockOptin, 232448},
        {cudaDevAttrWarpSize, 32},                    {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
        {cudaDevAttrMaxGridDimX, 2147483647},         {cudaDevAttrMaxGridDimY, 65535},
        {cudaDevAttrMaxGridDimZ, 65535},              {cudaDevAttrL2CacheSize, 50 << 20},
    };
    auto found = values.find(attribute);
    *value = found == values.end() ? 1 : found->second;
    return cudaSuccess;
}
EXPORT cudaError_t cudaGetDeviceProperties(cudaDeviceProp* device, int) {
    memset(device, 0, sizeof *device);
    strcpy(device->name, "fake H100");
    device->totalGlobalMem = MEMORY;
    device->major = 9;
    device->multiProcessorCount = PROCESSORS;
    device->warpSize = 32;
    device->maxThreadsPerBlock = device->maxThreadsDim[0] = device->maxThreadsDim[1] = 1024;
    device->maxThreadsDim[2] = 64;
    device->maxGridSize[0] = 2147483647;
    device->maxGridSize[1] = device->maxGridSize[2] = 65535;
    device->maxThreadsPerMultiProcessor = 2048;
    device->maxBlocksPerMultiProcessor = 32;
    device->regsPerBlock = device->regsPerMultiprocessor = 65536;
    device->sharedMemPerBlock = 49152;
    device->sharedMemPerBlockOptin = 232448;
    device->sharedMemPerMultiprocessor = 233472;
    device->l2CacheSize = 50 << 20;
    device->textureAlignment = 512;
    device->unifiedAddressing = device->canMapHostMemory = device->concurrentKernels = 1;
    return cudaSuccess;
}

// Memory
EXPORT cudaError_t cudaMalloc(void** address, size_t bytes) {
    *address = nullptr;
    if (!bytes) return cudaSuccess;
    *address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (*address == MAP_FAILED) return cudaErrorMemoryAllocation;
    add_block(*address, bytes, Place::device);
    return cudaSuccess;
}
EXPORT cudaError_t cudaFree(void* address) {
    if (size_t bytes = remove_block(address)) munmap(address, bytes);
    return cudaSuccess;
}
EXPORT cudaError_t cudaHostAlloc(void** address, size_t bytes, unsigned) {
    size_t page = 4096;
    *address = aligned_alloc(page, (bytes + page - 1) / page * page);
    add_block(*address, bytes, Place::pinned);
    return cudaSuccess;
}
EXPORT cudaError_t cudaFreeHost(void* address) {
    remove_block(address);
    free(address);
    return cudaSuccess;
}
EXPORT cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
    *available = *total = MEMORY;
    return cudaSuccess;
}
EXPORT cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
    static const cudaMemoryType types[] = {cudaMemoryTypeUnregistered, cudaMemoryTypeHost, cudaMemoryTypeDevice};
    memset(attributes, 0, sizeof *attributes);
    attributes->type = types[int(place_of(address))];
    attributes->devicePointer = attributes->hostPointer = const_cast<void*>(address);
    return cudaSuccess;
}
EXPORT cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
    return copy(to, from, bytes, true);
}
EXPORT cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
    return copy(to, from, bytes, false);
}
EXPORT cudaError_t cudaMemset(void*, int, size_t bytes) { count("memset", bytes); return cudaSuccess; }
EXPORT cudaError_t cudaMemsetAsync(void*, int, size_t bytes, cudaStream_t) {
    count("memset", bytes);
    return cudaSuccess;
}

// Streams and events
EXPORT cudaError_t cudaStreamCreate(cudaStream_t* stream) { return create(stream); }
EXPORT cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) { return create(stream); }
EXPORT cudaError_t cudaEventCreate(cudaEvent_t* event) { return create(event); }
EXPORT cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return create(event); }
EXPORT cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) { *priority = 0; return cudaSuccess; }
EXPORT cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
EXPORT cudaError_t cudaStreamGetCaptureInfo(
    cudaStream_t, cudaStreamCaptureStatus* status, unsigned long long*, cudaGraph_t*, const cudaGraphNode_t**,
    const cudaGraphEdgeData**, size_t*) {
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
EXPORT cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
    *milliseconds = 1;
    return cudaSuccess;
}
EXPORT cudaError_t cudaDeviceSynchronize() { count("wait for the device"); return cudaSuccess; }
EXPORT cudaError_t cudaStreamSynchronize(cudaStream_t) { count("wait for a stream"); return cudaSuccess; }
EXPORT cudaError_t cudaEventSynchronize(cudaEvent_t) { count("wait for an event"); return cudaSuccess; }
EXPORT cudaError_t cudaLaunchHostFunc(cudaStream_t, cudaHostFn_t function, void* data) {
    function(data);
    return cudaSuccess;
}

// Kernels
EXPORT void __cudaRegisterFunction(
    void**, const char* kernel, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*, int*) {
    kernels()[kernel] = name;
}
EXPORT cudaError_t __cudaGetKernel(cudaKernel_t* handle, const void* kernel) {
    *handle = cudaKernel_t(kernel);
    return cudaSuccess;
}
EXPORT unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
    launches.push_back({grid, block, shared, stream});
    return 0;
}
EXPORT cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
    Launch last = launches.back();
    launches.pop_back();
    *grid = last.grid;
    *block = last.block;
    *shared = last.shared;
    *static_cast<cudaStream_t*>(stream) = last.stream;
    return cudaSuccess;
}
EXPORT cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3, dim3, void**, size_t, cudaStream_t) {
    return launch(kernel);
}
EXPORT cudaError_t cudaLaunchKernel(const void* kernel, dim3, dim3, void**, size_t, cudaStream_t) {
    return launch(kernel);
}
EXPORT cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void* kernel, void**) { return launch(kernel); }
EXPORT cudaError_t cudaLaunchCooperativeKernel(const void* kernel, dim3, dim3, void**, size_t, cudaStream_t) {
    return launch(kernel);
}
EXPORT cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
    memset(attributes, 0, sizeof *attributes);
    attributes->binaryVersion = attributes->ptxVersion = 90;
    attributes->maxThreadsPerBlock = 1024;
    attributes->numRegs = 32;
    return cudaSuccess;
}
EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int* blocks, const void*, int threads, size_t, unsigned) {
    *blocks = threads ? 2048 / threads : 1;
    return cudaSuccess;
}
EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int threads, size_t) {
    *blocks = threads ? 2048 / threads : 1;
    return cudaSuccess;
}
EXPORT cudaError_t cudaGetSymbolAddress(void** address, const void*) { return create(address); }
EXPORT cudaError_t cudaGetDriverEntryPointByVersion(
    const char*, void** function, unsigned, unsigned long long, cudaDriverEntryPointQueryResult* result) {
    *function = nullptr;
    if (result) *result = cudaDriverEntryPointSymbolNotFound;
    return cudaErrorNotSupported;
}
