"""`minift verify-resume RUN`: does a run that is killed end where the one that is not ends?"""

from minift import hookimpl


@hookimpl
def minift_register_commands():
    from minift_verify.command import VerifyResume

    return {"verify-resume": VerifyResume}
