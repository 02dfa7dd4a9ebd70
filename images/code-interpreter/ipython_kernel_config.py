c = get_config()  # noqa: F821
c.IPKernelApp.extensions = ["wrenn_kernel"]
# Nobody opens its history again, and a file that all kernels write to makes each of them wait.
c.HistoryManager.enabled = False
