import torch

# The tests' tensors are small: threads would only wait for each other, and for other processes on the same cores.
torch.set_num_threads(1)
