# Flags of the TPU compiler, a generation: the one place. Source this file; it defines two functions.
#
#   generation_of TYPE         v5litepod-8 -> v5e, v5p-512 -> v5p, v6e-256 -> v6e, tpu7x-4x4x4 -> tpu7x
#   libtpu_flags GENERATION    prints LIBTPU_INIT_ARGS
#
# Where they come from (AI-Hypercomputer on GitHub, read in their stored copies):
#   [lib]  maxtext/benchmarks/xla_flags_library.py
#   [v5e]  maxtext/MaxText/configs/v5e/128b.sh
#   [v5p]  maxtext/MaxText/configs/v5p/128b.sh
#   [v6e]  maxtext/MaxText/configs/trillium/llama3.1-405b.sh
#   [7x]   tpu-recipes/training/ironwood/llama3.1-70b/8k-bf16-tpu7x-4x4x4/run_recipe.sh
# They were chosen there for language models; measure before you trust them here. libtpu 0.0.52 knows every name.
# An unknown name ends the process at once, so a name that a later libtpu drops cannot go unseen.

generation_of() {
  case "$1" in
    v5litepod-*) echo v5e ;;
    v5p-*) echo v5p ;;
    v6e-*) echo v6e ;;
    tpu7x-*) echo tpu7x ;;
    *) return 1 ;;
  esac
}

libtpu_flags() {
  local -a flags
  # [lib: CF_FOR_ALL_GATHER] parameters are gathered while the layer before computes
  local -a overlap=(
    --xla_enable_async_all_gather=true            # a gather may run beside computation
    --xla_tpu_overlap_compute_collective_tc=true  # on the tensor core
  )
  # The rest of that list. v5e alone: libtpu 0.0.52 refuses to compile with it for v5p and v6e,
  # for which [v5p] and [v6e] still set it.
  local -a fusion=(
    --xla_tpu_enable_async_collective_fusion=true                  # collectives are fused with computation
    --xla_tpu_enable_async_collective_fusion_fuse_all_gather=true  # gathers too
    --xla_tpu_enable_async_collective_fusion_multiple_steps=true   # over more than one fusion
  )
  # [lib: DATA_PARALLEL_OVERLAP] gradients cross the data center network during the backward pass
  local -a between_slices=(
    --xla_tpu_enable_data_parallel_all_reduce_opt=true    # all-reduces between slices, early
    --xla_tpu_data_parallel_opt_different_sized_ops=true  # of unlike sizes too
  )
  case "$1" in
    v5e) flags=("${overlap[@]}" "${fusion[@]}" "${between_slices[@]}") ;;  # [v5e]
    v5p)  # [v5p], less fusion
      flags=(
        "${overlap[@]}" "${between_slices[@]}"
        --xla_tpu_megacore_fusion_allow_ags=false     # gathers stay out of two-core fusions, free to overlap
        --xla_enable_async_collective_permute=true    # ring steps beside computation
        --xla_tpu_enable_ag_backward_pipelining=true  # gathers of the next backward layer start early
      )
      ;;
    v6e)  # [v6e], less fusion and host offload; [lib: DENSE_VMEM_LIMIT]
      flags=(
        "${overlap[@]}" "${between_slices[@]}"
        --xla_tpu_scoped_vmem_limit_kib=98304  # larger tiles in fusions and kernels
      )
      ;;
    tpu7x)  # [7x]
      flags=(
        --xla_tpu_scoped_vmem_limit_kib=65536               # larger tiles in fusions and kernels
        --xla_tpu_bf16_emission_mode=NATIVE_EMISSION        # bfloat16 arithmetic as it is
        --xla_enable_async_all_gather=true                  # a gather may run beside computation
        --xla_tpu_prefer_async_allgather_to_allreduce=true  # since gathers overlap
        # The sparse cores move the data, and the tensor cores stay free:
        --xla_tpu_enable_async_collective_fusion_fuse_all_gather=false
        --xla_tpu_enable_sparse_core_collective_offload_all_gather=true
        --xla_tpu_enable_sparse_core_collective_offload_2d_all_gather=true
        --xla_tpu_enable_sparse_core_collective_offload_3d_all_gather=true
        --xla_tpu_use_single_sparse_core_for_all_gather_offload=true
        --xla_tpu_enable_sparse_core_collective_offload_reduce_scatter=true
        --xla_tpu_enable_sparse_core_reduce_scatter_v2=true
        --xla_tpu_enable_sparse_core_collective_offload_all_reduce=true
        # [7x] and [lib] set these together with the offload:
        --xla_tpu_enable_all_gather_offload_tracing=true
        --xla_tpu_use_tc_device_shape_on_sc=true
        --xla_sc_disable_megacore_partitioning=true
      )
      ;;
    *) return 1 ;;
  esac
  echo "${flags[*]}"
}
