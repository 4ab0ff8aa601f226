// cuBLAS and cuDNN. The functions take fewer arguments than the real ones where they do not use them, which the calling
// convention of x86-64 allows.
#include "counts.h"

#include <cstdlib>

#define KERNEL(name) EXPORT int name() { count("kernel " #name); return 0; }
#define CREATE(name) EXPORT int name(void** handle) { *handle = malloc(64); return 0; }

CREATE(cublasCreate_v2)
EXPORT int cublasGetMathMode(void*, int* mode) { return *mode = 0; }
EXPORT int cublasGetPointerMode_v2(void*, int* mode) { return *mode = 0; }
EXPORT int cublasSetMathMode(void*, int mode) { count("cuBLAS math mode " + std::to_string(mode)); return 0; }
EXPORT int cublasLtMatmulAlgoGetHeuristic(
    void*, void*, void*, void*, void*, void*, void*, int, void*, int* algorithms) {
    *algorithms = 1;
    return 0;
}
KERNEL(cublasGemmEx)
KERNEL(cublasGemmStridedBatchedEx)
KERNEL(cublasLtMatmul)
KERNEL(cublasSgemmEx)
KERNEL(cublasSgemmStridedBatched)
KERNEL(cublasSgemm_v2)
KERNEL(cublasSgemv_v2)

CREATE(cudnnCreate)
EXPORT int cudnnGetStream(void*, void** stream) { *stream = nullptr; return 0; }
KERNEL(cudnnBackendExecute)
KERNEL(cudnnBatchNormalizationBackwardEx)
KERNEL(cudnnBatchNormalizationForwardInference)
KERNEL(cudnnBatchNormalizationForwardTrainingEx)
KERNEL(cudnnPoolingForward)
KERNEL(cudnnSpatialTfGridGeneratorForward)
KERNEL(cudnnSpatialTfSamplerBackward)
KERNEL(cudnnSpatialTfSamplerForward)
EXPORT int cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(
    void*, int, int, void*, void*, void*, void*, void*, size_t* bytes) {
    *bytes = 1024;
    return 0;
}
EXPORT int cudnnGetBatchNormalizationBackwardExWorkspaceSize(
    void*, int, int, void*, void*, void*, void*, void*, void*, void*, size_t* bytes) {
    *bytes = 1024;
    return 0;
}
EXPORT int cudnnGetBatchNormalizationTrainingExReserveSpaceSize(void*, int, int, void*, void*, size_t* bytes) {
    *bytes = 1024;
    return 0;
}
