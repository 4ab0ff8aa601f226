// Descriptors of cuDNN's graph keep the attributes that are set. Every convolution has one engine.
#include "counts.h"

#include <cudnn_graph.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <vector>

namespace {
struct Descriptor {
    cudnnBackendDescriptorType_t type;
    std::map<cudnnBackendAttributeName_t, std::vector<char>> attributes;
};
size_t size_of(cudnnBackendAttributeType_t type) {
    switch (type) {
        case CUDNN_TYPE_BACKEND_DESCRIPTOR:
        case CUDNN_TYPE_DOUBLE:
        case CUDNN_TYPE_HANDLE:
        case CUDNN_TYPE_INT64:
        case CUDNN_TYPE_VOID_PTR:
            return 8;
        default:
            return 4;
    }
}
}  // namespace

EXPORT cudnnStatus_t cudnnBackendCreateDescriptor(
    cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* descriptor) {
    *descriptor = new Descriptor{type, {}};
    return CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
    delete static_cast<Descriptor*>(descriptor);
    return CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
    if (static_cast<Descriptor*>(descriptor)->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) count("cuDNN plan");
    return CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnBackendSetAttribute(
    cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
    int64_t elements, const void* values) {
    auto bytes = static_cast<const char*>(values);
    static_cast<Descriptor*>(descriptor)->attributes[name].assign(bytes, bytes + size_of(type) * size_t(elements));
    return CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnBackendGetAttribute(
    cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
    int64_t requested, int64_t* elements, void* values) {
    int64_t ignored, &found = elements ? *elements : ignored;
    auto& attributes = static_cast<Descriptor*>(descriptor)->attributes;
    switch (name) {
        case CUDNN_ATTR_ENGINEHEUR_RESULTS:
        case CUDNN_ATTR_ENGINECFG_ENGINE:
        case CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG:
        case CUDNN_ATTR_ENGINE_OPERATION_GRAPH:
            found = 1;  // a descriptor, which the caller has created
            return CUDNN_STATUS_SUCCESS;
        case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE:
        case CUDNN_ATTR_ENGINE_GLOBAL_INDEX:
            found = 1;
            if (values) *static_cast<int64_t*>(values) = 0;
            return CUDNN_STATUS_SUCCESS;
        default:
            break;
    }
    auto attribute = attributes.find(name);
    found = attribute == attributes.end() ? 0 : int64_t(attribute->second.size() / size_of(type));
    if (found && values) memcpy(values, attribute->second.data(), size_of(type) * size_t(std::min(found, requested)));
    return CUDNN_STATUS_SUCCESS;
}
