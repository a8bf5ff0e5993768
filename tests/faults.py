"""A disk that fails, or a machine that loses power, at the n-th thing that a process does to a folder.

Counted are: making a folder, opening a file to write, each write to it (half of it arrives), forcing it to the disk, links and renames.
At the chosen one the process gets an error, is killed, or loses power: then what was written and not forced to the disk is cut in half.
"""
import builtins
import errno
import io
import os
import pickle
import signal
import traceback
from pathlib import Path


class Faulty:
    def __init__(self, root, at, how):
        self.root,self.at,self.how,self.count,self.loose,self.log = str(Path(root).resolve()),at,how,0,{},[]

    def ours(self, path): return os.fspath(path).startswith(self.root)

    def step(self, what, path, before=lambda: None):
        "One more thing is done; the last one if it is its turn"
        self.count += 1
        self.log.append((what, str(path).removeprefix(self.root)))
        if self.count!=self.at: return
        before()
        if self.how=='kill': os.kill(os.getpid(), signal.SIGKILL)
        if self.how=='power':
            for path in self.loose.values():
                if os.path.isfile(path): os.truncate(path, os.path.getsize(path)//2)
            os.kill(os.getpid(), signal.SIGKILL)
        code = dict(full=errno.ENOSPC, disk=errno.EIO)[self.how]
        raise OSError(code, os.strerror(code), str(path))

    def install(self):
        "For the rest of the life of this process"
        real = {k:getattr(os, k) for k in ('mkdir', 'fsync', 'link', 'rename', 'replace')}
        opened = io.open

        def wrapped(name):
            def f(path, *args, **kwargs):
                where = os.readlink(f'/proc/self/fd/{path}') if name=='fsync' else os.fspath(path)
                nothing = name=='mkdir' and os.path.isdir(where) # Python looks away
                if self.ours(where) and not nothing: self.step(name, where)
                out = real[name](path, *args, **kwargs)
                if name=='fsync': self.loose.pop(os.fstat(path).st_ino, None)
                if name in ('rename', 'replace'): self.loose = {k:v.replace(where, os.fspath(args[0])) for k,v in self.loose.items()}
                return out
            return f

        faulty = self

        class Writer:
            "A file whose writes are counted"
            def __init__(self, file): self.file = file
            def __getattr__(self, name): return getattr(self.file, name)
            def __enter__(self): return self
            def __exit__(self, *args): self.file.close()
            def __iter__(self): return iter(self.file)
            def write(self, data):
                def half(): self.file.write(data[:len(data)//2]); self.file.flush()
                faulty.step('write', self.file.name, half)
                return self.file.write(data)

        def open_(file, mode='r', *args, **kwargs):
            writes = set(mode) & set('wax+') and not isinstance(file, int) and self.ours(os.path.abspath(os.fspath(file)))
            if writes: self.step('open', os.path.abspath(os.fspath(file)))
            f = opened(file, mode, *args, **kwargs)
            if not writes: return f
            self.loose[os.fstat(f.fileno()).st_ino] = os.path.abspath(os.fspath(file))
            return Writer(f)

        for k in real: setattr(os, k, wrapped(k))
        builtins.open = io.open = open_


def in_a_fork(f, root=None, at=0, how='disk', seconds=60):
    "(what `f` returned or raised, how often the disk was touched, exit code; negative for a signal) of a forked copy of this process"
    r,w = os.pipe()
    if not (pid := os.fork()):
        os.close(r)
        faulty = Faulty(root or '/nowhere', at, how)
        code = 0
        try:
            signal.alarm(seconds)
            if root: faulty.install()
            said = f()
        except BaseException as e: # noqa: B036
            said,code = e,1
            if os.environ.get('QUANTETF_DEBUG'): traceback.print_exc()
        try: out = pickle.dumps((said, faulty.count, faulty.log))
        except Exception: out = pickle.dumps((f'{type(said).__name__}: {said}', faulty.count, faulty.log))
        with os.fdopen(w, 'wb', closefd=True) as pipe: pipe.write(out)
        os._exit(code)
    os.close(w)
    with os.fdopen(r, 'rb') as pipe: data = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    said,count,log = pickle.loads(data) if data else (None, at, [])
    return said,count,log,code
