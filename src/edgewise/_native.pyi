# Types of the compiled extension, one section per room of csrc/.
