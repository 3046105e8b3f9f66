"""The layers that images are made of, from files of Debian packages (unpacked folders, nothing installed)."""
import os
import subprocess

from layer import Layer

PASSWD = """root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
GROUP = "root:x:0:\ndaemon:x:1:\nwww-data:x:33:\nnogroup:x:65534:\n"
SHELL = {"Cmd": ["sh"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}


def busybox(package):
    """Applets are hard links: a mask laid over one of them must not mask all the others, as it would through a symlink.
    The package must be Debian's dynamic `busybox`: in its static one the shell runs applets without looking at the file,
    so that a masked /bin/ls still works."""
    binary = package + "/bin/busybox"
    layer = Layer().program(binary, "/bin/busybox")
    applets = subprocess.run([binary, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            layer.hard_link("/bin/" + applet, "/bin/busybox")
    # two that the validation suite calls and this build lacks
    layer.file("/bin/pgrep", '#!/bin/sh\nexec pidof "$1"\n', 0o755)
    layer.file("/bin/ipcs", "#!/bin/sh\nexec cat /proc/sysvipc/shm\n", 0o755)
    layer.file("/etc/passwd", PASSWD).file("/etc/group", GROUP).file("/etc/nsswitch.conf", "hosts: files dns\n")
    layer.folder("/tmp", 0o1777).folder("/root", 0o700)
    for path in ("/home", "/var/www", "/var/log", "/proc", "/sys", "/dev", "/mnt", "/run"):
        layer.folder(path)
    return layer


def bash(binary):
    return Layer().program(binary, "/bin/bash").file("/etc/debian_version", "12.0\n")


def nginx(package, port):
    config = f"""user root;
worker_processes 1;
pid /var/run/nginx.pid;
error_log /dev/stderr notice;
events {{ worker_connections 64; }}
http {{
    access_log /dev/stdout;
    client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fcgi;
    uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
    server {{ listen {port}; location / {{ root /usr/share/nginx/html; index index.html; }} }}
}}
"""
    layer = Layer().program(package + "/usr/sbin/nginx", "/usr/sbin/nginx")
    layer.file("/etc/nginx/nginx.conf", config)
    layer.file("/usr/share/nginx/html/index.html", "<title>Welcome to nginx!</title>\n")
    return layer.folder("/var/run").folder("/var/log/nginx").folder("/var/lib/nginx/body")


def compile_static(source, folder, *flags):
    out = os.path.join(folder, os.path.basename(source)[:-2])
    subprocess.run(["gcc", "-Os", "-s", "-static", *flags, "-o", out, source], check=True)
    return out
