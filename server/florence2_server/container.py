"""The entry point of both images: `florence2-server serve` with the images' defaults.

Arguments of the container (`docker run IMAGE --log-info=1`) are passed to tritonserver and override the default flags.
"""

import os
import sys

from florence2_server.serving import serve

if __name__ == "__main__":
    sys.exit(serve(os.environ, is_image=True, arguments=sys.argv[1:]))
