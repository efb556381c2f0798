"""A stand-in of NVIDIA's runner/tao_pt.py: the same order of mounts, a shell without quotes, and exit status 0.

It differs in two things: the image is that of IMAGE, and the version of the engine is not asked.
"""

RUNNER = """\
import argparse, json, os, subprocess, sys

words = sys.argv[1:]
index = words.index("--") if "--" in words else len(words)
parser = argparse.ArgumentParser()
parser.add_argument("--gpus", default="all")
parser.add_argument("--volume", action="append", default=[])
parser.add_argument("--env", action="append", default=[])
parser.add_argument("--no-tty", dest="tty", action="store_false")
parser.add_argument("--mounts_file", default="")
parser.add_argument("--shm_size", default="16G")
parser.add_argument("--run_as_user", action="store_true")
parser.add_argument("--tag")
parser.add_argument("--ulimit", action="append")
args = parser.parse_args(words[:index])
mounts = []
for path in (os.path.expanduser("~/.tao_mounts.json"), args.mounts_file):
    if os.path.exists(path):
        mounts += ["{source}:{destination}".format(**entry) for entry in json.load(open(path))["Mounts"]]
mounts += args.volume
for mount in mounts:
    if not os.path.exists(mount.split(":")[0]):
        raise ValueError("Path doesn't exist: " + mount)
parts = ["docker run -it --rm" if args.tty else "docker run --rm"]
parts += ["--gpus all" if args.gpus == "all" else "--gpus \\'\\"device={}\\"\\'".format(args.gpus)]
parts += ["-v {}:/tao-pt".format(os.getenv("NV_TAO_PYTORCH_TOP", os.getcwd()))] + ["-v " + mount for mount in mounts]
parts += ["-e PYTHONPATH=/tao-pt:$PYTHONPATH"] + ["-e " + env for env in args.env if "=" in env]
parts += ["--shm-size " + args.shm_size] + ["--ulimit " + limit for limit in args.ulimit or []]
parts += ["--user {}:{}".format(os.getuid(), os.getgid())] if args.run_as_user else []
command = " ".join([*parts, "--net=host", os.environ["IMAGE"], *words[index + 1 :]])
print(command, flush=True)
try:
    subprocess.check_call(command, stdout=sys.stderr, shell=True)
except subprocess.CalledProcessError:
    pass
"""
