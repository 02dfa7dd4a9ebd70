# Jupyter Server of the code interpreter. The capsule is the boundary: who may reach its ports is decided outside of it.
c = get_config()  # noqa: F821
c.ServerApp.ip = "0.0.0.0"
c.ServerApp.port = 8888
c.ServerApp.port_retries = 0
c.ServerApp.open_browser = False
c.ServerApp.allow_root = True
c.ServerApp.token = ""
c.ServerApp.password = ""
c.ServerApp.disable_check_xsrf = True
c.ServerApp.allow_origin = "*"
c.ServerApp.allow_remote_access = True
# The working directory of a kernel is given below it.
c.ServerApp.root_dir = "/"
c.ServerApp.terminals_enabled = False
# Output beyond a rate would be dropped; readers set the pace instead.
c.ServerApp.iopub_data_rate_limit = 0
c.ServerApp.iopub_msg_rate_limit = 0
c.ServerApp.log_level = "WARN"
